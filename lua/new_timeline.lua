#!lua flags=allow-oom
--[[ new_timeline — start a new timeline: every replica refills its cache and every watch has to list again.

  KEYS   version   string  {mesh}:version
         timeline  string  {mesh}:timeline
         log       stream  {mesh}:log
  ARGV   new_timeline_id  text, a random id
         log_length       integer, entries the log stores
         min_version      integer, the timeline starts above this version
  REPLY  created <version>   the first version of the new timeline
  WRITES version timeline log
  EMITS  new_timeline timeline_replaced
  COST   O(1)
]]
--@include now_ms
--@include begin_timeline
local version, timeline, log = unpack(KEYS)
local new_timeline_id, log_length, min_version = unpack(ARGV)

local options = { id = new_timeline_id, min_version = tonumber(min_version), log_length = log_length }
options.reason = 'timeline_replaced'
return { 'created', begin_timeline(version, timeline, log, now_ms(), options) }
