-- A follower asks for the verdict: agents whose lease ended, or that are past the bound of the whole shutdown, are lost.
-- ARGV: microseconds from the request to the bound, and to the first time that anybody may be declared lost: leases may
--       have run out while Redis was away, so everybody gets time for a heartbeat first.
-- Returns {'ok'}.

local bound_us, patience_us = unpack(ARGV, 3)
local requested_us = redis.call('HGET', JOB, 'requested_us')
if not requested_us or NOW_US < requested_us + patience_us then
  return {'ok'}
end

local until_us = int(NOW_US)
if NOW_US > requested_us + bound_us then
  until_us = '+inf'
end
for _, agent_id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', until_us)) do
  redis.call('ZREM', LEASES, agent_id)
  redis.call('SADD', LOST, agent_id)
  event('agent.lost', redis.call('HGET', AGENTS, agent_id) or '{}')
end
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
