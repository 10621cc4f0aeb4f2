#!lua flags=allow-oom
--[[ init_log — return the mesh's timeline; start one if the version, the timeline or the last log entry is missing.

  It also starts one, above all earlier versions, if the store is below seen_version: it lost data, or replaced another.

  KEYS   version   string  {mesh}:version
         timeline  string  {mesh}:timeline
         log       stream  {mesh}:log
  ARGV   new_timeline_id  text, a random id for a new timeline
         log_length       integer, entries the log stores
         seen_version     integer, the highest version that the caller has read or returned
  REPLY  ok <version> <timeline>        the mesh has a timeline
         created <version> <timeline>   a new timeline was started
  WRITES version timeline log
  EMITS  new_timeline log_initialized | nothing
  COST   O(1)
]]
--@include now_ms
--@include begin_timeline
--@include last_lost_version
local version, timeline, log = unpack(KEYS)
local new_timeline_id, log_length, seen_version = unpack(ARGV)

local current, id = redis.call('GET', version), redis.call('GET', timeline)
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local has_lost_versions = (tonumber(current) or 0) < tonumber(seen_version)
if not has_lost_versions and current and id and last and last[1] == current .. '-0' then
  return { 'ok', current, id }
end
local min_version = 0
if has_lost_versions then
  -- Clients may hold versions that this log has with other contents: no watch may resume from them.
  redis.call('UNLINK', log)
  min_version = last_lost_version(seen_version)
end
local options = { id = new_timeline_id, min_version = min_version, log_length = log_length, reason = 'log_initialized' }
return { 'created', begin_timeline(version, timeline, log, now_ms(), options), new_timeline_id }
