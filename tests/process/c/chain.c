/* A chain: each generation forks the next one and exits at once, so that whoever looks finds only who has just gone.
 *
 * chain LIFE_S [setsid] [deaf]: each generation in a session of its own; ignoring SIGTERM. It says `ready` when the
 * second generation is there. Every generation looks at the clock: the chain ends by itself after LIFE_S seconds, and
 * after LIFE_MAX_S at the latest. It says `old` then, and is not to be taken for one that was stopped. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_MAX_S = 60 };

static time_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        _exit(1);
}

int main(int argc, char **argv)
{
    int life_s = argc > 1 ? atoi(argv[1]) : 0;
    time_t end_s = now_s() + (life_s < LIFE_MAX_S ? life_s : LIFE_MAX_S);
    int leaves = 0;
    for (int i = 2; i < argc; i++) {
        leaves |= !strcmp(argv[i], "setsid");
        if (!strcmp(argv[i], "deaf"))
            signal(SIGTERM, SIG_IGN);
    }
    for (int first = 1; now_s() < end_s; first = 0) {
        if (fork() > 0)
            _exit(0);
        if (leaves)
            setsid();
        if (first)
            say("ready\n");
    }
    say("old\n");
    return 0;
}
