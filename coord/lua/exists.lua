-- Is there such a job? Returns 1 or 0.

return redis.call('EXISTS', JOB)
