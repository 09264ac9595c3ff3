"use strict"

/**
 * The scripts of src/users.rs: for stores that delegate, which may have no binding to ask. A test holds them to the
 * binding's.
 */
const TIME =
  "local time = redis.call('TIME') " +
  "local now = time[1] * 1000 + math.floor(time[2] / 1000) local stamp = string.format('%d%06d', time[1], time[2]) "

const EXPIRE =
  "local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] for i = 1, last and 2 or 0 do " +
  "if last == 'inf' then redis.call('PERSIST', KEYS[i]) " +
  "else redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', last)) end end "

const ENTER =
  `${TIME}local limit = tonumber(ARGV[3]) ` +
  "if limit and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= limit then " +
  "return 0 end local entry = ':' .. stamp .. ':' .. ARGV[2] .. ':' .. ARGV[4] " +
  "local isnew = redis.call('HSETNX', KEYS[1], ARGV[1], stamp .. entry) if isnew == 0 then " +
  "local created = string.match(redis.call('HGET', KEYS[1], ARGV[1]), '^%d+') " +
  "redis.call('HSET', KEYS[1], ARGV[1], created .. entry) end " +
  "local score = 'inf' if ARGV[2] ~= '' then score = string.format('%.0f', now + ARGV[2] * 1.1 + 1) end " +
  "local differs = redis.call('ZADD', KEYS[2], score, ARGV[1]) ~= isnew " +
  "local dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - 1, 'LIMIT', 0, 1000) " +
  "if #dead > 0 then redis.call('HDEL', KEYS[1], unpack(dead)) redis.call('ZREM', KEYS[2], unpack(dead)) end " +
  "if differs or (time[2] % 16 == 0 and redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2])) then " +
  "for _, handle in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do " +
  "if redis.call('HEXISTS', KEYS[1], handle) == 0 then redis.call('ZREM', KEYS[2], handle) end end " +
  "local all = redis.call('HGETALL', KEYS[1]) for i = 1, #all, 2 do " +
  "if not redis.call('ZSCORE', KEYS[2], all[i]) then " +
  "local at, life = string.match(all[i + 1], '^%d+:(%d+):(%d*)') " +
  "local lost = life == '' and 'inf' or string.format('%.0f', at / 1000 + life * 1.1 + 1) " +
  `redis.call('ZADD', KEYS[2], lost, all[i]) end end end ${EXPIRE}local count = 1 ` +
  "if ARGV[3] ~= '' then count = redis.call('HLEN', KEYS[1]) end "

const SCRIPTS = {
  index: `${ENTER}return count`,
  signIn:
    `${ENTER}if ARGV[2] == '' then redis.call('SET', KEYS[3], ARGV[5]) ` +
    "else redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[2]) end return count",
  entries:
    "local found = {} if #ARGV == 0 then found = redis.call('HGETALL', KEYS[1]) end " +
    "for _, handle in ipairs(ARGV) do local entry = redis.call('HGET', KEYS[1], handle) " +
    "if entry then found[#found + 1] = handle found[#found + 1] = entry end end " +
    "local time = redis.call('TIME') found[#found + 1] = string.format('%d%06d', time[1], time[2]) return found",
  remove:
    "local count = 0 for i = 1, #ARGV, 2 do if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then " +
    "redis.call('HDEL', KEYS[1], ARGV[i]) redis.call('ZREM', KEYS[2], ARGV[i]) count = count + 1 end end " +
    `${EXPIRE}return count`,
  sweep:
    `${TIME}local count = 0 local all = redis.call('HGETALL', KEYS[1]) for i = 1, #all, 2 do ` +
    "local at, kind = string.match(all[i + 1], '^%d+:(%d+):%d*:(%a)') " +
    "local limit = kind == 'a' and ARGV[1] or ARGV[2] if now - at / 1000 > tonumber(limit) then " +
    "redis.call('HDEL', KEYS[1], all[i]) redis.call('ZREM', KEYS[2], all[i]) count = count + 1 end end " +
    `${EXPIRE}return count`,
  renew:
    "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end " +
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) return 1",
}

module.exports = { SCRIPTS }
