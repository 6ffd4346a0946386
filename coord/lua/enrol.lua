-- An agent runs something of a job that is fenced already: the job's name is an RQ group or an RQ job, so that nobody had
-- to join it. The agent has to answer like one that joined, and a verdict without its word was made too early.
-- ARGV: agent id, AgentInfo JSON, lease_us.
-- Returns {'none'} when the job is not fenced: join it; else 'exists' with the request.

wholly()
local agent_id, info, lease_us = unpack(ARGV, 3)

if not fenced() then
  return {'none'}
end
hear(agent_id)
redis.call('HSET', AGENTS, agent_id, info)
redis.call('ZREM', LEFT, agent_id)
redis.call('ZREM', LOST, agent_id)
if redis.call('ZADD', LEASES, int(NOW_US + lease_us), agent_id) == 1 then
  redis.call('HDEL', JOB, 'verdict', 'verdict_us')
  event('agent.joined', info)
end
touch()
return request('exists')
