-- A follower asks for the verdict: agents whose lease ended, or that are past the bound of the whole shutdown, are lost.
-- ARGV: microseconds from the request to the bound, and to the first time that anybody may be declared lost: leases may
--       have run out while Redis was away, so everybody gets time for a heartbeat first; '1' when the follower can't tell
--       whether Redis was away, since it was not here all the time; '1' to broadcast the request again; the seal that it
--       had when it was read, and a fresh one: agents refuse what was signed long ago, or heard before.
-- Returns {'ok'}.

wholly()
local bound_us, patience_us, was_away, again, sealed, seal = unpack(ARGV, 3)
local requested_us = redis.call('HGET', JOB, 'requested_us')
if not requested_us then
  return {'ok'}
end
if again == '1' and sealed == (redis.call('HGET', JOB, 'seal') or '') and (sealed == '' or (seal ~= '' and not unfit(seal))) then
  redis.call('HSET', JOB, 'seal', seal)
  broadcast()
end

local doubted_us = tonumber(redis.call('HGET', JOB, 'patience_us') or 0)
local since_us = was_away == '1' and silent_since_us()
if since_us and doubted_us < since_us then -- one silence is doubted once: the dead stay silent
  have_patience()
  touch()
end
if NOW_US < requested_us + patience_us or patient() then
  return {'ok'}
end

local until_us = int(NOW_US)
-- Who heard late began late: after a silence everybody gets the whole time anew.
if NOW_US > math.max(requested_us, doubted_us) + bound_us then
  until_us = '+inf'
end
lose(until_us)
local due_us = redis.call('HGET', JOB, 'rq_due_us')
-- Once it is overdue, who waits for it may claim it: that, too, takes them a moment.
if due_us and (until_us == '+inf' or NOW_US > due_us + patience_us) then
  redis.call('HDEL', JOB, 'rq_due_us')
  redis.call('HSET', JOB, 'rq_lost', 1)
  event('rq.lost', cjson.encode({by = redis.call('HGET', JOB, 'rq_by') or cjson.null}))
end
settle()
touch()
return {'ok'}
