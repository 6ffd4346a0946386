/* A program that nobody but root may signal: installed setuid root, it becomes root in full, says so, and sleeps. */
#include <unistd.h>

enum { LIFE_S = 600 };

int main(void)
{
    if (setuid(0) || write(1, "ready\n", 6) != 6)
        return 1;
    for (unsigned left_s = LIFE_S; left_s;)
        left_s = sleep(left_s);
    return 0;
}
