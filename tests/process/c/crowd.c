/* crowd COUNT: a parent with so many children, all of whom sleep; it says `ready` when all are there. */
#include <stdlib.h>
#include <unistd.h>

enum { LIFE_S = 600 };

static int rest(void)
{
    for (unsigned left_s = LIFE_S; left_s;)
        left_s = sleep(left_s);
    return 0;
}

int main(int argc, char **argv)
{
    for (int left = argc > 1 ? atoi(argv[1]) : 0; left > 0; left--) {
        pid_t pid = fork();
        if (pid < 0)
            return 1;
        if (pid == 0)
            return rest();
    }
    return write(1, "ready\n", 6) == 6 ? rest() : 1;
}
