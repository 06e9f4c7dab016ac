-- Projects into the mirror, all of one call at once. The key schema is in keys.py.
--
-- KEYS  1 lease, 2 meta, 3 changes
-- ARGV  1 the lease this daemon holds
--       2 epoch, 3 seq: where the mirror must be for this to be applied; '' for what belongs to no place in the journal
--       4 the commands: a JSON list of lists of words; besides those of Redis there are ANNOUNCE, REPLY and FORGET
--         (below)
--
-- Returns {'ok'}, or, with nothing done, {'lease', <who holds it>} or {'place', <epoch>, <seq>}.

local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  return {'lease', held or ''}
end
if ARGV[2] ~= '' then
  local place = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
  if place[1] ~= ARGV[2] or place[2] ~= ARGV[3] then
    return {'place', place[1] or '', place[2] or ''}
  end
end

for _, command in ipairs(cjson.decode(ARGV[4])) do
  if command[1] == 'ANNOUNCE' then
    -- id in the stream, how many entries are kept, change, channels …
    -- An entry that is there already was added by a call that was cut short: it is the same entry.
    local reply = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', command[3], command[2], 'change', command[4])
    if type(reply) == 'table' and reply.err and not string.find(reply.err, 'equal or smaller', 1, true) then
      return redis.error_reply(reply.err)
    end
    for channel = 5, #command do
      redis.call('PUBLISH', command[channel], command[4])
    end
  elseif command[1] == 'REPLY' then
    -- inbox, entry that is done, and, unless it gets none, where the reply goes, for how many seconds, the reply
    -- Actors may write these keys: what one of them made of its own must not keep the others from being served.
    if command[4] then
      redis.pcall('DEL', command[4])
      redis.pcall('RPUSH', command[4], command[6])
      redis.pcall('EXPIRE', command[4], command[5])
    end
    redis.pcall('XDEL', command[2], command[3])
  elseif command[1] == 'FORGET' then
    -- inbox of an agent that is not known: it goes unless a request waits in it
    if redis.pcall('XLEN', command[2]) == 0 then
      redis.call('DEL', command[2])
    end
  else
    redis.call(unpack(command))
  end
end
return {'ok'}
