-- An agent is alive. It learns whether its job has a request, so that even a silently dead subscription costs one beat.
-- ARGV: agent id, lease_us.
-- Returns 'exists' with the request, {'none'}, or {'unknown'} when the record has lost this agent, and it has to join again.

local agent_id, lease_us = unpack(ARGV, 3)

local known = redis.call('ZSCORE', LEASES, agent_id)
redis.call('ZADD', LEASES, 'XX', int(NOW_US + lease_us), agent_id)
touch()
if fenced() then
  return request('exists')
end
return {known and 'none' or 'unknown'}
