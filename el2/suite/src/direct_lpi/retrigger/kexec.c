// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * kexec IMAGE ADDRESS INITRAMFS START END: replaces the running kernel. The addresses are
 * hexadecimal and physical. The new kernel's initramfs replaces this kernel's, which is from START
 * to END and must not be smaller. The new kernel's devicetree is this kernel's, but its command
 * line lacks the word `kexecs`; memory above the initramfs must be free for it.
 *
 * kexec IMAGE ADDRESS INITRAMFS START END LIMIT MEMORY: prepares a kernel that starts when the
 * running one crashes. It gets the memory from ADDRESS to LIMIT instead of this kernel's, which the
 * file MEMORY, a `reg` of the devicetree, contains. Its command line has the word `crashed` instead
 * of `crashes`.
 */
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

/* Replaces a text or value of the devicetree wherever it stands. */
static void replace(const void *old, const void *new, long length)
{
	const char *from = old, *to = new;
	long at, same, put;

	for (at = 0; at + length <= (long)DTB_SIZE; at++) {
		for (same = 0; same < length && dtb[at + same] == from[same];)
			same++;
		for (put = 0; same == length && put < length; put++)
			dtb[at + put] = to[put];
	}
}

static void replace_cells(unsigned long old, unsigned long new)
{
	old = __builtin_bswap64(old);
	new = __builtin_bswap64(new);
	replace(&old, &new, sizeof(old));
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

static void load(struct segment *segment, const char *path, unsigned long address, int step)
{
	long file = open_file(path, step);
	/* A private mapping for reading. */
	long size = call(SYS_lseek, file, 0, 2, 0, 0, 0);
	long data = call(SYS_mmap, 0, size, 1, 2, file, 0);

	check(data > -(long)PAGE && data < 0 ? data : 0, step);
	segment->data = (void *)data;
	segment->size = size;
	segment->address = address;
	segment->memory = aligned(size, PAGE);
}

static void load_devicetree(void)
{
	long file = open_file("/sys/firmware/fdt", 3), size = 0, part;

	while ((part = call(SYS_read, file, (long)dtb + size, DTB_SIZE - size, 0, 0, 0)) > 0)
		size += part;
	check(part, 3);
	replace("kexecs", "      ", 6);
}

/* Gives the new kernel other memory than the running one's, and another place of its initramfs. */
static void confine(const char *file, unsigned long start, unsigned long limit,
		    const unsigned long *old, const struct segment *initramfs)
{
	unsigned long all[2], own[2] = { __builtin_bswap64(start), __builtin_bswap64(limit - start) };

	check(call(SYS_read, open_file(file, 7), (long)all, sizeof(all), 0, 0, 0), 7);
	replace(all, own, sizeof(all));
	replace_cells(old[0], initramfs->address);
	replace_cells(old[1], initramfs->address + initramfs->size);
	replace("crashes", "crashed", 7);
}

__attribute__((used)) static void run(long *stack)
{
	char **arguments = (char **)(stack + 1);
	unsigned long kernel, free, old[2], limit = 0;
	struct segment segments[4];

	check(stack[0] == 6 || stack[0] == 8 ? 0 : -1, 9);
	if (stack[0] == 8)
		limit = number(arguments[6]);
	kernel = number(arguments[2]);
	old[0] = number(arguments[4]);
	old[1] = number(arguments[5]);
	load(&segments[0], arguments[1], kernel, 1);
	load_devicetree();
	if (limit) {
		/* The header of an image contains its size in memory. */
		segments[0].memory = aligned(((const unsigned long *)segments[0].data)[2], PAGE);
		free = aligned(kernel + segments[0].memory, DTB_ALIGNMENT);
		load(&segments[1], arguments[3], free, 2);
		free = aligned(free + segments[1].size, DTB_ALIGNMENT);
		confine(arguments[7], kernel, limit, old, &segments[1]);
	} else {
		load(&segments[1], arguments[3], old[0], 2);
		segments[1].memory = aligned(old[1], PAGE) - old[0];
		free = aligned(old[1], DTB_ALIGNMENT);
	}
	segments[2] = (struct segment){ dtb, DTB_SIZE, free, DTB_SIZE };
	segments[3] = (struct segment){ &entry, sizeof(entry), free + DTB_SIZE, PAGE };
	entry.dtb = free;
	entry.kernel = kernel;
	/* The architecture is arm64, and the lowest bit means a crash. */
	check(call(SYS_kexec_load, free + DTB_SIZE, 4, (long)segments, 183 << 16 | !!limit, 0, 0), 4);
	if (limit)
		call(SYS_exit, 0, 0, 0, 0, 0, 0);
	check(call(SYS_reboot, 0xfee1dead, 672274793, 0x45584543, 0, 0, 0), 5);
	call(SYS_exit, 6, 0, 0, 0, 0, 0);
}

asm(".globl _start\n_start: mov x0, sp\n\tb run\n");
