/*
 * A plugin of QEMU that counts the instructions that each CPU executes in the hypervisor without
 * looking for interrupts: until it enters a guest, or reads ICC_IAR1_EL1. Other CPUs' instructions
 * do not count, unlike in virtual time. At the end, prints the largest count of each CPU, and how
 * often it looked.
 *
 * The declarations are those of version 3 of the plugins' interface, and of GLib. GUESTS is the
 * offset of the guests' RAM in the machine's, where the first instruction is at offset 0. If CPUs
 * run in turn, QEMU passes the index of the CPU for which a block was translated (gen_cpu_index in
 * accel/tcg/plugin-gen.c), so we read the hypervisor's own number of the CPU.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define CPUS 8
/* MRS Xt, ICC_IAR1_EL1, apart from t. */
#define READ_IAR1 0xd538cc00
#define ERET 0xd69f03e0

typedef void on_execution(unsigned cpu, void *data);
enum { NO_REGS, READS_REGS };
struct array {
	char *data;
	unsigned count;
};
struct reg {
	void *handle;
	const char *name, *feature;
};

struct array *g_byte_array_new(void);
struct array *g_byte_array_set_size(struct array *, unsigned count);
struct array *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(void *handle, struct array *bytes);
void qemu_plugin_register_vcpu_init_cb(uint64_t id, void (*)(uint64_t id, unsigned cpu));
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t id, void *block));
void qemu_plugin_register_vcpu_tb_exec_cb(void *block, on_execution *, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(void *insn, on_execution *, int flags, void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const void *block);
void *qemu_plugin_tb_get_insn(const void *block, size_t index);
size_t qemu_plugin_insn_data(const void *insn, void *data, size_t bytes);
void *qemu_plugin_insn_haddr(const void *insn);

EXPORT int qemu_plugin_version = 3;

/* QEMU closes its own standard output before it calls `report`. */
static FILE *output;
static const char *ram;
static uint64_t now[CPUS], longest[CPUS], looks[CPUS];
static char has_entered_guest[CPUS];

static void *tpidr_el2;
static struct array *bytes;

static unsigned this_cpu(void)
{
	g_byte_array_set_size(bytes, 0);
	qemu_plugin_read_register(tpidr_el2, bytes);
	return bytes->data[0] % CPUS;
}

static void execute(unsigned translated_for, void *count)
{
	now[this_cpu()] += (uintptr_t)count;
}

static void look(unsigned translated_for, void *enters_guest)
{
	unsigned cpu = this_cpu();

	if (has_entered_guest[cpu] && now[cpu] > longest[cpu])
		longest[cpu] = now[cpu];
	looks[cpu] += has_entered_guest[cpu];
	has_entered_guest[cpu] |= enters_guest != NULL;
	now[cpu] = 0;
}

static void translate(uint64_t id, void *block)
{
	size_t count = qemu_plugin_tb_n_insns(block);
	const char *place = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0));

	if (!ram)
		ram = place;
	if (place - ram >= GUESTS)
		return;
	qemu_plugin_register_vcpu_tb_exec_cb(block, execute, READS_REGS, (void *)count);
	for (size_t index = 0; index < count; index++) {
		void *insn = qemu_plugin_tb_get_insn(block, index);
		uint32_t code = 0;

		qemu_plugin_insn_data(insn, &code, sizeof(code));
		if (code == ERET)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, look, READS_REGS, block);
		if ((code & ~0x1f) == READ_IAR1)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, look, READS_REGS, NULL);
	}
}

static void find_register(uint64_t id, unsigned cpu)
{
	struct array *all = qemu_plugin_get_registers();
	const struct reg *regs = (const struct reg *)all->data;

	for (unsigned index = 0; index < all->count; index++)
		if (!strcmp(regs[index].name, "TPIDR_EL2"))
			tpidr_el2 = regs[index].handle;
}

static void report(uint64_t id, void *data)
{
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		fprintf(output, "CPU %u: %lu instructions, %lu looks\n", cpu, longest[cpu], looks[cpu]);
	fclose(output);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	bytes = g_byte_array_new();
	output = fdopen(dup(STDOUT_FILENO), "w");
	qemu_plugin_register_vcpu_init_cb(id, find_register);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, report, NULL);
	return 0;
}
