#ifndef INTERRUPTS_H
#define INTERRUPTS_H
#define PPI 1
#define INTERRUPT(kind, number, \
	flags) kind number flags
#define MAP(from, to, length) from &its to length
#endif
