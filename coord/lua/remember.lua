-- A job is put into the index; others are picked by chance, of which the caller looks whether they are still there: so
-- the index holds little more than what lives, whatever each job's lifetime, and at no more cost with more jobs.
-- KEYS: the index alone. ARGV: job id, '1' when it has joined before, how many to pick, microseconds for which a job is
-- new, seconds that the index lives.
-- Returns the names that were picked; nobody who is new, since a job is put here before its first join.

local INDEX = KEYS[1]
local job_id, again, count, new_us, life_s = unpack(ARGV, 3)

if again == '1' then
  redis.call('ZADD', INDEX, 'NX', int(NOW_US), job_id)
else
  redis.call('ZADD', INDEX, int(NOW_US), job_id)
end
redis.call('EXPIRE', INDEX, life_s)
local picked, old = redis.call('ZRANDMEMBER', INDEX, count, 'WITHSCORES'), {}
for i = 1, #picked, 2 do
  if tonumber(picked[i + 1]) < NOW_US - new_us then
    old[#old + 1] = picked[i]
  end
end
return old
