use super::*;
use proptest::prelude::*;

fn machine(cpus: u16) -> Server {
    Server::new(cpus, SecurityView::Single).unwrap()
}

/// Sends lines to a machine, and compares its answers, which end the lines after ` = ` (`OK` if
/// missing).
#[track_caller]
fn check(mut machine: Server, transcript: &[&str]) {
    for row in transcript {
        let (line, expected) = row.split_once(" = ").unwrap_or((row, "OK"));
        let answer = machine.answer(line);
        assert_eq!(answer.trim_end().replace('\n', "; "), expected, "{line}");
    }
}

#[test]
fn registers_have_the_addresses_of_qemus_machine() {
    check(
        machine(2),
        &[
            "readl 0x0800ffe8 = OK 0x000000000000003b",
            "readl 0x08080000 = OK 0x0000000080000000",
            "readq 0x080c0008 = OK 0x0000000100000111",
            // Pieces of GICD_CTLR, GICD_TYPER and GICD_IIDR.
            "readq 0x08000001 = OK 0x00077a0008000000",
            "readq -1 = OK 0x0000000000000000",
            "read 0x0800ffe8 4 = OK 0x3b000000",
        ],
    );
    // Processors 122 and 124 have the last redistributor of their region.
    check(
        machine(125),
        &["readq 0x08fe0008 = OK 0x0000070a00007a11", "readq 0x4000020008 = OK 0x0000070c00007c11"],
    );
}

#[test]
fn a_non_secure_script_sees_its_view() {
    check(
        Server::new(2, SecurityView::NonSecure).unwrap(),
        &[
            "writel 0x08000000 3",
            "readl 0x08000000 = OK 0x0000000000000012",
            "writel 0x08000420 0xff",
            "readl 0x08000420 = OK 0x00000000000000fe",
        ],
    );
}

#[test]
fn memory_is_written_filled_and_read() {
    check(
        machine(1),
        &[
            "write 0x40000010 4 0x01020304",
            "readl 0x40000010 = OK 0x0000000004030201",
            "memset 0x40000013 0x2 0x1aa",
            "read 0x4000000f 7 = OK 0x00010203aaaa00",
            "write 0x40000010 3 0x77",
            "read 0x40000010 3 = OK 0x770000",
            "writeq 0x47fffff8 -1",
            "readq 0x47fffff8 = OK 0xffffffffffffffff",
        ],
    );
}

#[test]
fn changes_of_intercepted_inputs_precede_the_reply() {
    // On CPU 1, SGI 0 (Group 0) and SGI 1 (Group 1) are enabled.
    let listening = || {
        let mut machine = machine(2);
        machine.listen().unwrap();
        for line in [
            "writel 0x08000000 3",
            "writel 0x080c0014 0",
            "writel 0x080d0080 2",
            "writel 0x080d0100 0xffffffff",
        ] {
            assert_eq!(machine.answer(line), "OK\n");
        }
        machine
    };
    check(
        listening(),
        &[
            "irq_intercept_in /machine/unattached/device[1]",
            "irq_intercept_in /machine/unattached/device[0] = FAIL IRQ intercept already enabled",
            "writel 0x080d0200 2 = IRQ raise 0; OK",
            "writel 0x080d0200 1 = IRQ raise 1; IRQ lower 0; OK",
            "writel 0x080d0280 1 = IRQ lower 1; IRQ raise 0; OK",
        ],
    );
    check(
        listening(),
        &[
            "irq_intercept_out /machine/unattached/device[3] = FAIL Unknown device",
            "irq_intercept_out /machine/unattached/device[2] sysbus-irq",
            "writel 0x080d0200 2 = IRQ raise 1; OK",
            "writel 0x080d0200 1 = IRQ raise 3; IRQ lower 1; OK",
            // PPI 27 of CPU 1, and SPI 33.
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 315 1",
            "set_irq_in /machine/unattached/device[2] unnamed-gpio-in 1 1",
            "readl 0x080d0200 = OK 0x0000000008000003",
            "readl 0x08000204 = OK 0x0000000000000002",
        ],
    );
}

#[test]
fn each_malformed_line_is_answered_with_the_reason() {
    const SIZE: &str = "the size is not between 1 and 16777216 bytes of the address space";
    for (line, reason) in [
        ("foo", "Unknown command 'foo'"),
        ("", "Unknown command ''"),
        ("readl", "the address is missing"),
        ("readl zz", "the address is not a number of 64 bits"),
        ("writeq 0 0x1ffffffffffffffff", "the value is not a number of 64 bits"),
        ("read 0 0", SIZE),
        ("read 0 0x1000001", SIZE),
        ("read -1 2", SIZE),
        ("write 0x40000000 2 0x1", "the data is malformed"),
        ("irq_intercept_in /machine/nope", "Unknown device"),
        ("irq_intercept_out /machine/unattached/device[0] irq", "No intercepts installed"),
        ("set_irq_in /machine/unattached/device[1] unnamed-gpio-in 288 1", "Unknown line"),
        ("set_irq_in /machine/unattached/device[0] unnamed-gpio-in 0 1", "Unknown line"),
    ] {
        assert_eq!(machine(1).answer(line), format!("FAIL {reason}\n"), "{line}");
    }
    let mut said = Vec::new();
    machine(1).serve(b"\xff\xfe\nendianness".as_slice(), &mut said).unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), "FAIL the line is not UTF-8\nOK little\n");
}

/// Generates words, some of which belong to the protocol.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "readb|readw|readl|readq|writeb|writew|writel|writeq|read|write|memset",
        "irq_intercept_in|irq_intercept_out|set_irq_in|unnamed-gpio-in|sysbus-irq",
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
        let mut machine = machine(2);
        for words in lines {
            let answer = machine.answer(&words.join(" "));
            let reply = answer.lines().next_back().unwrap_or_default();
            prop_assert!(reply.starts_with("OK") || reply.starts_with("FAIL "), "{answer}");
        }
    }
}
