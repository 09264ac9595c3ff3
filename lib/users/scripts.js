"use strict"

/**
 * The scripts of src/users.rs, for stores that delegate, since the binding may be missing. A test compares
 * both.
 */
const TIME =
  "local time = redis.call('TIME') local stamp = time[1] .. string.sub('00000' .. time[2], -6) local now = " +
  "string.sub(stamp, 1, -4) "

const EXPIRE =
  "local last, cursor = 0, '0' repeat local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 100) " +
  "cursor = page[1] for i = 2, #page[2], 2 do local at, life = string.match(page[2][i], '^%d+:(%d+):(%d*)') " +
  "if life == '' then last, cursor = -1, '0' break end last = math.max(last, at / 1000 + life * 1.1 + 1) end " +
  "until cursor == '0' if last == -1 then redis.call('PERSIST', KEYS[1]) " +
  "elseif last > 0 then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last)) end "

const ENTER =
  `${TIME}if ARGV[3] ~= '' then local limit = tonumber(ARGV[3]) if limit and redis.call('HEXISTS', KEYS[1], ARGV[1]) ` +
  "== 0 and redis.call('HLEN', KEYS[1]) >= limit then return 0 end end local entry = ':' .. stamp .. ':' .. " +
  "ARGV[2] .. ':' .. ARGV[4] local left = redis.call('PTTL', KEYS[1]) local before if redis.call('HSETNX', " +
  "KEYS[1], ARGV[1], stamp .. entry) == 0 then before = redis.call('HGET', KEYS[1], ARGV[1]) redis.call('HSET', " +
  "KEYS[1], ARGV[1], string.match(before, '^%d+') .. entry) end local till = ARGV[2] ~= '' and math.floor(now + " +
  "ARGV[2] * 1.1 + 1) if not till then if left >= 0 then redis.call('PERSIST', KEYS[1]) end elseif left == -2 or " +
  "(left >= 0 and now + left < till) then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', till)) elseif " +
  "before then local at, life = string.match(before, '^%d+:(%d+):(%d*)') if life == '' or (left >= 0 and at / " +
  `1000 + life * 1.1 + 10 > now + left) then ${EXPIRE}end end if left ~= -2 and time[2] % 16 == 0 then ` +
  "local from = 0 if redis.call('HLEN', KEYS[1]) > 100 then from = math.floor(time[2] / 16) + time[1] % 64 * 65536 " +
  "end local some = redis.call('HSCAN', KEYS[1], from, " +
  "'COUNT', 100)[2] local dead = {} for i = 1, #some, 2 do local at, life = string.match(some[i + 1], " +
  "'^%d+:(%d+):(%d*)') if life ~= '' and at / 1000 + life * 1.1 + 1 - now < 0 then dead[#dead + 1] = some[i] end " +
  "end if #dead > 0 then redis.call('HDEL', KEYS[1], unpack(dead)) end end local count = 1 if ARGV[3] ~= '' then " +
  "count = redis.call('HLEN', KEYS[1]) end "

const SCRIPTS = {
  index: `${ENTER}return count`,
  signIn:
    `${ENTER}if ARGV[2] == '' then redis.call('SET', KEYS[2], ARGV[5]) ` +
    "else redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[2]) end return count",
  entries:
    "local found = {} if #ARGV == 0 then found = redis.call('HGETALL', KEYS[1]) end " +
    "for _, handle in ipairs(ARGV) do local entry = redis.call('HGET', KEYS[1], handle) " +
    "if entry then found[#found + 1] = handle found[#found + 1] = entry end end " +
    "local time = redis.call('TIME') found[#found + 1] = string.format('%d%06d', time[1], time[2]) return found",
  remove:
    "local count, endless = 0, false for i = 1, #ARGV, 2 do if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] " +
    "then redis.call('HDEL', KEYS[1], ARGV[i]) endless = endless or string.match(ARGV[i + 1], " +
    "'^%d+:%d+:(%d*)') == '' count = count + 1 end end if endless or (count > 0 and redis.call('HLEN', KEYS[1]) <= " +
    `100) then ${EXPIRE}end return count`,
  sweep:
    "local count = 0 local all = redis.call('HGETALL', KEYS[1]) for i = 1, #all, 2 do " +
    "local at, kind = string.match(all[i + 1], '^%d+:(%d+):%d*:(%a)') " +
    "local limit = kind == 'a' and ARGV[1] or ARGV[2] if tonumber(at) < tonumber(limit) then " +
    `redis.call('HDEL', KEYS[1], all[i]) count = count + 1 end end ${EXPIRE}return count`,
  renew:
    "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end " +
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) return 1",
}

module.exports = { SCRIPTS }
