// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * kexec IMAGE ADDRESS INITRAMFS START END: replaces the running kernel. The addresses are
 * hexadecimal and physical. The new kernel's initramfs replaces this kernel's, which is from START
 * to END and must not be smaller. The new kernel's devicetree is this kernel's, but its command
 * line lacks the word `kexecs`; memory above the initramfs must be free for it.
 */
#define WORD "kexecs"
#define LENGTH ((long)sizeof(WORD) - 1)
#define PAGE 4096UL
#define DTB_SIZE (1UL << 20)
#define DTB_ALIGNMENT (2UL << 20)

enum {
	SYS_openat = 56, SYS_lseek = 62, SYS_read = 63, SYS_exit = 93, SYS_kexec_load = 104,
	SYS_reboot = 142, SYS_mmap = 222,
};

struct segment {
	const void *data;
	unsigned long size, address, memory;
};

/* Enters the kernel with the address of the devicetree in x0. */
static struct {
	unsigned int code[6];
	unsigned long dtb, kernel;
} entry = {
	.code = {
		0x580000c0, /* ldr x0, [pc, #24] */
		0x580000e4, /* ldr x4, [pc, #28] */
		0xaa1f03e1, /* mov x1, xzr */
		0xaa1f03e2, /* mov x2, xzr */
		0xaa1f03e3, /* mov x3, xzr */
		0xd61f0080, /* br x4 */
	},
};
static char dtb[DTB_SIZE] __attribute__((aligned(4096)));

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 asm("x8") = number, x0 asm("x0") = a, x1 asm("x1") = b;
	register long x2 asm("x2") = c, x3 asm("x3") = d, x4 asm("x4") = e, x5 asm("x5") = f;

	asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
		     : "memory");
	return x0;
}

static void check(long result, int step)
{
	if (result < 0)
		call(SYS_exit, step, 0, 0, 0, 0, 0);
}

static long open_file(const char *path, int step)
{
	long file = call(SYS_openat, -100, (long)path, 0, 0, 0, 0);

	check(file, step);
	return file;
}

static unsigned long number(const char *text)
{
	unsigned long value = 0;

	for (; *text; text++)
		value = value << 4 | (unsigned long)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
	return value;
}

static unsigned long aligned(unsigned long value, unsigned long to)
{
	return (value + to - 1) & -to;
}

static void load(struct segment *segment, const char *path, const char *address, int step)
{
	long file = open_file(path, step);
	/* A private mapping for reading. */
	long size = call(SYS_lseek, file, 0, 2, 0, 0, 0);
	long data = call(SYS_mmap, 0, size, 1, 2, file, 0);

	check(data > -(long)PAGE && data < 0 ? data : 0, step);
	segment->data = (void *)data;
	segment->size = size;
	segment->address = number(address);
	segment->memory = aligned(size, PAGE);
}

static void load_devicetree(void)
{
	long file = open_file("/sys/firmware/fdt", 3), size = 0, part, at, same;

	while ((part = call(SYS_read, file, (long)dtb + size, DTB_SIZE - size, 0, 0, 0)) > 0)
		size += part;
	check(part, 3);
	for (at = 0; at + LENGTH <= size; at++) {
		for (same = 0; same < LENGTH && dtb[at + same] == WORD[same];)
			same++;
		for (; same == LENGTH && part < LENGTH; part++)
			dtb[at + part] = ' ';
	}
}

__attribute__((used)) static void run(long *stack)
{
	char **arguments = (char **)(stack + 1);
	unsigned long free;
	struct segment segments[4];

	check(stack[0] == 6 ? 0 : -1, 9);
	free = aligned(number(arguments[5]), DTB_ALIGNMENT);
	load(&segments[0], arguments[1], arguments[2], 1);
	load(&segments[1], arguments[3], arguments[4], 2);
	segments[1].memory = aligned(number(arguments[5]), PAGE) - segments[1].address;
	load_devicetree();
	segments[2] = (struct segment){ dtb, DTB_SIZE, free, DTB_SIZE };
	segments[3] = (struct segment){ &entry, sizeof(entry), free + DTB_SIZE, PAGE };
	entry.dtb = free;
	entry.kernel = segments[0].address;
	/* The architecture is arm64. */
	check(call(SYS_kexec_load, free + DTB_SIZE, 4, (long)segments, 183 << 16, 0, 0), 4);
	check(call(SYS_reboot, 0xfee1dead, 672274793, 0x45584543, 0, 0, 0), 5);
	call(SYS_exit, 6, 0, 0, 0, 0, 0);
}

asm(".globl _start\n_start: mov x0, sp\n\tb run\n");
