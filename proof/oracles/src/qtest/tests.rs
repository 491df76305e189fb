use super::*;
use gic_arch::icc;
use proptest::prelude::*;

fn machine() -> Qtest {
    Qtest::new(2).unwrap()
}

/// Sends lines to a machine, and compares its answers, which end the lines after ` = ` (`OK` if
/// missing).
#[track_caller]
fn check(mut machine: Qtest, transcript: &[&str]) {
    for row in transcript {
        let (line, expected) = row.split_once(" = ").unwrap_or((row, "OK"));
        let answer = machine.answer(line).to_string();
        assert_eq!(answer.trim_end().replace('\n', "; "), expected, "{line}");
    }
}

#[test]
fn registers_have_the_addresses_of_the_qemu_virt_machine() {
    check(
        machine(),
        &[
            "readl 0x0800ffe8 = OK 0x000000000000003b",
            "readl 0x08080000 = OK 0x0000000080000000",
            "readq 0x080a0008 = OK 0x0000000000000001",
            "readq 0x080c0008 = OK 0x0000000100000111",
        ],
    );
}

#[test]
fn a_machine_with_two_security_states_shows_the_non_secure_view() {
    // In the Non-secure view, GICD_CTLR has EnableGrp1A and ARE_NS, priorities have one bit less,
    // and the group registers are RAZ/WI.
    check(
        Qtest::non_secure(2).unwrap(),
        &[
            "writel 0x08000000 3",
            "readl 0x08000000 = OK 0x0000000000000012",
            "readl 0x080a0014 = OK 0x0000000000000000",
            "writel 0x08000420 0xff",
            "readl 0x08000420 = OK 0x00000000000000fe",
            "readl 0x08000084 = OK 0x0000000000000000",
        ],
    );
}

#[test]
fn surplus_redistributors_occupy_the_high_region() {
    // Processors 122 and 124 have the last redistributor of their region.
    check(
        Qtest::new(125).unwrap(),
        &["readq 0x08fe0008 = OK 0x0000070a00007a11", "readq 0x4000020008 = OK 0x0000070c00007c11"],
    );
}

#[test]
fn misaligned_accesses_are_split_into_aligned_pieces() {
    // Byte and halfword reads of GICD_TYPER return zero, whereas word reads return its value.
    // GICD_IIDR follows GICD_TYPER.
    check(
        machine(),
        &[
            "readq 0x08000001 = OK 0x00077a0008000000",
            "readq 0x08000004 = OK 0x0000043b077a0008",
            "readl 0x08000001 = OK 0x0000000000000000",
        ],
    );
}

#[test]
fn memory_is_written_filled_and_read() {
    check(
        machine(),
        &[
            "write 0x40000010 4 0x01020304",
            "readl 0x40000010 = OK 0x0000000004030201",
            "write 0x40000010 2 0xfffe",
            "memset 0x40000013 0x2 0x1aa",
            "read 0x4000000f 7 = OK 0x00fffe03aaaa00",
            "write 0x40000010 3 0x77",
            "read 0x40000010 3 = OK 0x770000",
            "memset 0x40000000 0 1",
            "write 0x40000000 2 0x = ERR invalid argument size",
        ],
    );
}

#[test]
fn unclaimed_addresses_read_zero() {
    check(
        machine(),
        &[
            "writeq 0x47fffffc -1",
            "readq 0x47fffffc = OK 0x00000000ffffffff",
            "readq 0xfffffffffffffff8 = OK 0x0000000000000000",
        ],
    );
}

#[test]
fn raising_an_input_line_makes_the_interrupt_pending() {
    check(
        machine(),
        &[
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 1",
            "readl 0x08000204 = OK 0x0000000000000002",
            // PPI 27 of CPU 1.
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 315 1",
            "readl 0x080d0200 = OK 0x0000000008000000",
            "readl 0x080b0200 = OK 0x0000000000000000",
        ],
    );
}

#[test]
fn an_intercepted_gic_reports_its_inputs_before_the_reply() {
    check(
        machine(),
        &[
            "irq_intercept_in /machine/unattached/device[2]",
            "irq_intercept_in /machine/unattached/device[0] = FAIL IRQ intercept already enabled",
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 1 = IRQ raise 1; OK",
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 1",
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 0 = IRQ lower 1; OK",
        ],
    );
}

/// Returns a machine whose CPUs take interrupts from both groups. On CPU 1, SGI 0 (Group 0) and SGI
/// 1 (Group 1) are enabled.
fn listening() -> Qtest {
    let mut machine = machine();
    machine.unmask();
    for line in [
        "writel 0x08000000 3",
        "writel 0x080a0014 0",
        "writel 0x080c0014 0",
        "writel 0x080d0080 2",
        "writel 0x080d0100 0xffffffff",
    ] {
        machine.answer(line);
    }
    machine
}

#[test]
fn intercepted_cpu_reports_irq_and_fiq() {
    check(
        listening(),
        &[
            "irq_intercept_in /machine/unattached/device[1]",
            "writel 0x080d0200 2 = IRQ raise 0; OK",
            "writel 0x080d0200 1 = IRQ raise 1; IRQ lower 0; OK",
            "writel 0x080d0280 1 = IRQ lower 1; IRQ raise 0; OK",
            "writel 0x080d0280 2 = IRQ lower 0; OK",
        ],
    );
}

#[test]
fn an_intercepted_gic_reports_the_outputs_of_each_cpu() {
    check(
        listening(),
        &[
            "irq_intercept_out /machine/unattached/device[2] sysbus-irq",
            "writel 0x080d0200 2 = IRQ raise 1; OK",
            "writel 0x080d0200 1 = IRQ raise 3; IRQ lower 1; OK",
            "writel 0x08000104 2",
            "writel 0x08000084 2",
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 1 = IRQ raise 0; OK",
            "writeq 0x08006108 1 = IRQ lower 0; OK",
        ],
    );
}

#[test]
fn acknowledging_an_interrupt_lowers_the_irq_output() {
    let mut machine = listening();
    machine.answer("irq_intercept_out /machine/unattached/device[2] sysbus-irq");
    machine.answer("writel 0x080d0200 2");
    assert_eq!(machine.irq_changes(), []);
    machine.vcpu(1).unwrap().read_sysreg(icc::IAR1.encoding()).unwrap();
    assert_eq!(machine.irq_changes(), [IrqChange::Lowered(1)]);
}

#[test]
fn interceptions_succeed_exactly_where_qemu_permits_them() {
    for (what, answer) in [
        ("out /machine/unattached/device[0]", "OK\n"),
        ("out /machine/unattached/device[0] pmu-interrupt", "OK\n"),
        ("out /machine/unattached/device[0] sysbus-irq", "FAIL No intercepts installed\n"),
        ("out /machine/unattached/device[2]", "OK\n"),
        ("out /machine/unattached/device[2] unnamed-gpio-out", "FAIL No intercepts installed\n"),
        ("in /machine/unattached/device[3]", "FAIL No intercepts installed\n"),
        ("out /machine/unattached/device[3]", "FAIL No intercepts installed\n"),
        (
            "in /machine/unattached/device[2] unnamed-gpio-in",
            "FAIL Interception of named in-GPIOs not yet supported\n",
        ),
    ] {
        assert_eq!(
            machine().answer(&format!("irq_intercept_{what}")).to_string(),
            answer,
            "{what}"
        );
    }
}

#[test]
fn a_gits_translater_write_uses_device_id_0() {
    let mut machine = machine();
    let commands: [[u64; 4]; 3] =
        [[0x08, 0, 1 << 63 | 0x4200_0000, 0], [0x09, 0, 1 << 63, 0], [0x0a, 8192 << 32, 0, 0]];
    for (words, at) in commands.iter().zip((0x4100_0000..).step_by(0x20)) {
        for (word, at) in words.iter().zip((at..).step_by(8)) {
            machine.answer(&format!("writeq {at:#x} {word:#x}"));
        }
    }
    check(
        machine,
        &[
            "writeq 0x080a0070 0x4300000f",
            "writeq 0x080a0078 0x4000000044000000",
            "writel 0x080a0000 1",
            "writeq 0x08080100 0x8000000046000000",
            "writeq 0x08080108 0x8000000047000000",
            "writeq 0x08080080 0x8000000041000000",
            "writel 0x08080000 1",
            "writeq 0x08080088 0x60",
            "writel 0x08090040 0",
            "writel 0x080a0000 0",
            "readb 0x44000400 = OK 0x0000000000000001",
        ],
    );
}

#[test]
fn one_cwriter_write_drains_the_whole_command_queue() {
    // 2000 commands with an invalid opcode, which the ITS skips.
    check(
        machine(),
        &[
            "writeq 0x08080080 0x800000004001000f",
            "writel 0x08080000 1",
            "writeq 0x08080088 0xfa00",
            "readq 0x08080090 = OK 0x000000000000fa00",
        ],
    );
}

#[test]
fn each_malformed_command_fails_with_its_reason() {
    for (line, reason) in [
        ("foo", "Unknown command 'foo'"),
        ("", "Unknown command ''"),
        ("readl", "the address is missing"),
        ("readl zz", "the address is not a number of 64 bits"),
        ("writel 0", "the value is missing"),
        ("writeq 0 0x1ffffffffffffffff", "the value is not a number of 64 bits"),
        ("read 0 0", "the size is not between 1 and 16777216 bytes of the address space"),
        ("read 0 0x1000001", "the size is not between 1 and 16777216 bytes of the address space"),
        ("read -1 2", "the size is not between 1 and 16777216 bytes of the address space"),
        ("write 0x40000000 2 0x1", "the data is malformed"),
        ("irq_intercept_in /machine/nope", "Unknown device"),
        ("set_irq_in /machine/unattached/device[9] unnamed-gpio-in 0 1", "Unknown device"),
        ("set_irq_in /machine/unattached/device[2] unnamed-gpio-in 256 1", "Unknown line"),
        ("set_irq_in /machine/unattached/device[3] unnamed-gpio-in 0 1", "Unknown line"),
    ] {
        assert_eq!(machine().answer(line).to_string(), format!("FAIL {reason}\n"), "{line}");
    }
}

#[test]
fn session_answers_every_line() {
    let mut said = Vec::new();
    let script = b"readl 0x0800ffe8\n\xff\xfe\nendianness".as_slice();
    serve(&mut machine(), script, &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said, "OK 0x000000000000003b\nFAIL the line is not UTF-8\nOK little\n");
}

/// Generates words, some of which belong to the protocol.
fn word() -> impl Strategy<Value = String> {
    let commands = "readb|readw|readl|readq|writeb|writew|writel|writeq|read|write|memset";
    let others = "irq_intercept_in|irq_intercept_out|set_irq_in|unnamed-gpio-in|sysbus-irq";
    prop_oneof![
        commands,
        others,
        "/machine/unattached/device\\[[0-9]\\]",
        "0x0?(8|80[0-9a-e])[0-9a-f]{1,5}",
        "-?[0-9]{1,5}",
        "0x[0-9a-f]{0,20}",
        "\\PC{0,8}"
    ]
}

proptest! {
    #[test]
    fn every_line_is_answered_without_a_panic(
        lines in prop::collection::vec(prop::collection::vec(word(), 0..6), 1..40)
    ) {
        let mut machine = machine();
        for words in lines {
            let answer = machine.answer(&words.join(" ")).to_string();
            let reply = answer.lines().next_back().unwrap_or_default();
            prop_assert!(
                ["OK", "FAIL", "ERR "].iter().any(|word| reply.starts_with(word)),
                "{answer}"
            );
        }
    }
}
