"""Ranges of Unicode characters, each as the inside of a regular expression's set.

The Python standard library has no data on scripts and joining. The ranges are those of Unicode 14, in the scripts of
UAX #31 that are in modern use.
"""

from typing import Final

LATIN: Final = (
    r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02b8\u02e0-\u02e4\u1d00-\u1d25\u1d2c-\u1d5c"
    r"\u1d62-\u1d65\u1d6b-\u1d77\u1d79-\u1dbe\u1e00-\u1eff\u2071\u207f\u2090-\u209c\u212a\u212b\u2132\u214e\u2183"
    r"\u2184\u2c60-\u2c7f\ua722-\ua787\ua78b-\ua7ff\uab30-\uab5a\uab5c-\uab64\uab66-\uab69\ufb00-\ufb06"
    r"\uff21-\uff3a\uff41-\uff5a\U00010780-\U000107ba\U0001df00-\U0001df1e"
)
"""The letters of the Latin script."""
GREEK: Final = (
    r"\u0370-\u0373\u0376-\u037d\u037f\u0386\u0388-\u03e1\u03f0-\u03f5\u03f7-\u03ff\u1d26-\u1d2a\u1d5d-\u1d61"
    r"\u1d66-\u1d6a\u1dbf\u1f00-\u1fbc\u1fbe\u1fc2-\u1fcc\u1fd0-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ffc\u2126\uab65"
)
"""The letters of the Greek script."""
CYRILLIC: Final = r"\u0400-\u0481\u048a-\u052f\u1c80-\u1c88\u1d2b\u1d78\ua640-\ua66e\ua67f-\ua69d"
"""The letters of the Cyrillic script."""
JOINING_LEFT: Final = (
    r"\u0620\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u0649\u064a\u066e\u066f\u0678-\u0687\u069a-\u06bf"
    r"\u06c1\u06c2\u06cc\u06ce\u06d0\u06d1\u06fa-\u06fc\u06ff\u0712-\u0714\u071a-\u071d\u071f-\u0727\u0729\u072b"
    r"\u072d\u072e\u074e-\u0758\u075c-\u076a\u076d-\u0770\u0772\u0775-\u0777\u077a-\u077f\u07ca-\u07ea"
    r"\u0841-\u0845\u0848\u084a-\u0853\u0855\u0860\u0862-\u0865\u0868\u0886\u0889-\u088d\u08a0-\u08a9\u08af\u08b0"
    r"\u08b3-\u08b8\u08ba-\u08c8\u1807\u1820-\u1878\u1887-\u18a8\u18aa\ua840-\ua872\U00010d00-\U00010d21\U00010d23"
    r"\U0001e900-\U0001e943"
)
"""The letters that join the next one, as in Arabic (Joining_Type D or L)."""
JOINING_RIGHT: Final = (
    r"\u0620\u0622-\u063f\u0641-\u064a\u066e\u066f\u0671-\u0673\u0675-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06fc\u06ff"
    r"\u0710\u0712-\u072f\u074d-\u077f\u07ca-\u07ea\u0840-\u0858\u0860\u0862-\u0865\u0867-\u0882\u0886"
    r"\u0889-\u088e\u08a0-\u08ac\u08ae-\u08c8\u1807\u1820-\u1878\u1887-\u18a8\u18aa\ua840-\ua871"
    r"\U00010d01-\U00010d23\U0001e900-\U0001e943"
)
"""The letters that join the one before (Joining_Type D or R)."""
VIRAMA: Final = (
    r"\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d3b\u0d3c\u0d4d\u0dca\u0e3a\u0eba\u0f84\u1039\u103a\u1714"
    r"\u1715\u1734\u17d2\u1a60\u1b44\u1baa\u1bab\u1bf2\u1bf3\u2d7f\ua806\ua82c\ua8c4\ua953\ua9c0\uaaf6\uabed"
    r"\U00011133\U00011134"
)
"""The signs that remove the vowel of a consonant, in the scripts of South Asia (Canonical_Combining_Class 9)."""
MARKS: Final = (
    r"\u0300-\u0341\u0343\u0344\u0346-\u0362\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8"
    r"\u06ea-\u06ed\u0711\u0730-\u074a\u07eb-\u07f3\u07fd\u0859-\u085b\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff"
    r"\u180b-\u180d\u180f\u1885\u1886\u18a9\U00010d24-\U00010d27\U0001e944-\U0001e94a"
)
"""The marks between two joining letters, which do not affect their joining (Joining_Type T)."""
EMOJI: Final = r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
"""Symbols that a variation selector shows as an emoji or as text."""
INVISIBLE: Final = r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff"
"""Letters and marks that are not shown (Default_Ignorable_Code_Point), apart from format characters."""
