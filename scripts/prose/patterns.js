"use strict"

/** The beginning of a sentence. */
const START = String.raw`(?<=^(?:\| *)?|[.!?:] )`

/** Patterns that plain technical English avoids, each with a `bad` example and a `good` one of the same meaning. */
const PATTERNS = [
  {
    pattern: /\b(whoever|whomever|somebody|nobody|anybody|everybody)\b/i,
    advice: "name the person or the program",
    bad: "Nobody can read it.",
    good: "Other users cannot read it.",
  },
  {
    pattern: /\b(of|by|to|with) whom\b|\bof which\b|\bof what\b/i,
    advice: "split the sentence in two",
    bad: "a request, of which the deadline has passed",
    good: "a request whose deadline has passed",
  },
  {
    pattern: /\bwhat\b[^.?!]{0,40}\bsays?\b/i,
    advice: 'use a noun: "values in `url` override"',
    bad: "It uses what the URL says.",
    good: "It uses the values in the URL.",
  },
  {
    pattern: /\bsays? (what|who|whom|why|how|where|whether)\b/i,
    advice: "name the contents",
    bad: "The error says what was tried.",
    good: "The error names the attempts.",
  },
  {
    pattern: new RegExp(`${START}(What|Whether|Who|Nor)\\b(?=[^.?!]*[.!,])(?! happens)`),
    advice: "begin with the subject",
    bad: "Whether it was loaded, the field shows.",
    good: "The field shows whether it was loaded.",
  },
  {
    pattern: new RegExp(`${START}Of (a|an|the|two|all|several|parallel|one)\\b`),
    advice: "begin with the subject",
    bad: "Of a connected client the server is asked.",
    good: "The store asks the server.",
  },
  {
    pattern: new RegExp(
      `${START}(Asked|Trusted|Refused|Given|Told|Tested|Emitted|Kept|Called) (at|by|with|only|when)\\b`,
    ),
    advice: "write the subject",
    bad: "Asked at every connect.",
    good: "The store calls it at every connect.",
  },
  {
    pattern: /\b(is|are|was|were|be|been|it|get|gets) told\b|\btells? of\b|\btold to\b/i,
    advice: 'use "reported", "notified" or "receives"',
    bad: "The caller is told.",
    good: "The caller receives the error.",
  },
  {
    pattern: /(?<!\bthere\s+)\b(is|are|was|were) no (?!longer\b|more\b|less\b|later\b|older\b)[a-z]/i,
    advice: 'use "is not a"',
    bad: "A miss is no error.",
    good: "A miss is not an error.",
  },
  {
    pattern: /\bany ?more\b|\bholds? no more\b/i,
    advice: 'use "no longer" or leave it out',
    bad: "The key is not there any more.",
    good: "The key no longer exists.",
  },
  {
    pattern: /\ball the same\b|\bas far as there\b|\bfor want of\b|\bby and by\b|\bsay so yourself\b/i,
    advice: "leave it out or say it directly",
    bad: "It is written all the same.",
    good: "It is written nevertheless.",
  },
  {
    pattern: /\bfor ever\b/i,
    advice: 'use "until ...", "always" or "without a limit"',
    bad: "It reconnects for ever.",
    good: "It reconnects until `close()` is called.",
  },
  {
    pattern: /\b(is|are|was) let go\b|\blets? go of\b/i,
    advice: 'use "closed" or "released"',
    bad: "It is let go by close.",
    good: "close releases it.",
  },
  {
    pattern: /\bgo(es)? before\b/i,
    advice: 'use "overrides"',
    bad: "The URL goes before the option.",
    good: "The URL overrides the option.",
  },
  {
    pattern: /\bspoken? to\b|\bspeak(s)? to\b/i,
    advice: 'use "connect to" or "call"',
    bad: "how to speak to Redis",
    good: "how to connect to Redis",
  },
  {
    pattern: /\b(came|comes|come) (about|of it)\b/i,
    advice: "name the event",
    bad: "connections that came about",
    good: "connections that were opened",
  },
  {
    pattern: /\bis said\b|\bare said\b|\bsaid by\b|\bhas said\b/i,
    advice: "name the setting or the writer",
    bad: "The database is said by the URL.",
    good: "The URL contains the database.",
  },
  {
    pattern: /\b(hence|thereof|thereby|whence|therein|wherein)\b/i,
    advice: "use a common word",
    bad: "the file and the sections thereof",
    good: "the file and its sections",
  },
  {
    pattern: /\b(is|are|was|were|be|been) asked (of|for)\b/i,
    advice: 'name the actor: "the store reads", "the store requests"',
    bad: "The map is asked for at every connect.",
    good: "The store requests the map at every connect.",
  },
  {
    pattern: /(?<!\bthere )\b(is|are|counts? as) none\b/i,
    advice: 'use "is not a" or "counts as absent"',
    bad: "A callback that is false is none.",
    good: "A callback that is false counts as absent.",
  },
  {
    pattern: /\b(by|over|from) which\b/i,
    advice: "split the sentence in two, or use a noun",
    bad: "the marker by which the store knows it",
    good: "the marker that identifies it",
  },
  {
    pattern: /\banew\b|\bput right\b|\bnow and then\b|\bthe way out\b|\bin the words of\b|\bbe it\b/i,
    advice: "use a common word: again, repaired, sometimes, the remedy, as in",
    bad: "It is put right by the next save.",
    good: "The next save repairs it.",
  },
  {
    pattern: /\bfor so long\b|\bso (much|many|long) (later|longer|times|milliseconds|bytes|others)\b/i,
    advice: 'name the amount, or use "this many"',
    bad: "It lives so much longer.",
    good: "It lives 60 seconds longer.",
  },
  {
    pattern: /\bspeaks? (HTTP|TLS|RESP|Redis)\b/i,
    advice: 'use "uses"',
    bad: "The client speaks HTTP.",
    good: "The client uses HTTP.",
  },
  {
    pattern: /\bas far as\b/i,
    advice: 'use "the part of", "if" or "until"',
    bad: "express-session, as far as it is needed",
    good: "the part of express-session that is needed",
  },
]

module.exports = { PATTERNS }
