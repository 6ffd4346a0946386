-- The whole record of one job at one instant. Changes nothing.
-- Returns {now_us, job, agents, reports, leases, left, heard, lost, number of RQ jobs}: flat lists of names and values, as
-- HGETALL gives them.
-- ARGV: if anything, how many agents are too many: of more, only the job is read. Then a last element says how many.

local at_most = tonumber(ARGV[3])
local agents = at_most and redis.call('HLEN', AGENTS)
if at_most and agents > at_most then
  return {int(NOW_US), redis.call('HGETALL', JOB), {}, {}, {}, {}, {}, {}, redis.call('HLEN', RQ), agents}
end
return {
  int(NOW_US),
  redis.call('HGETALL', JOB),
  redis.call('HGETALL', AGENTS),
  redis.call('HGETALL', REPORTS),
  redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', LEFT, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', HEARD, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', LOST, 0, -1),
  redis.call('HLEN', RQ),
  agents, -- nil ends the list
}
