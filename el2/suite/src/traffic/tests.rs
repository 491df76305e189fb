use super::*;

const LOG: &str = "\
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 1
pci_nvme_create_cq create completion queue, addr=0x6b660000, cqid=1, vector=1, qsize=1023
pci_nvme_irq_msix raising MSI-X IRQ vector 0
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441c048
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441bfb0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 2
pci_nvme_irq_msix raising MSI-X IRQ vector 1
pci_nvme_irq_msix raising MSI-X IRQ vector 2
pci_nvme_irq_msix raising MSI-X IRQ vector 2
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441bfb0
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441c048
";
const ROWS: &str = "\
 13:          1          0     GICv3  33 Level     uart-pl011
 15:          1          1   ITS-MSI 32769 Edge      virtio0-input.0
 16:          0          1   ITS-MSI 32770 Edge      virtio0-output.0
 17:          1          0   ITS-MSI 16384 Edge      nvme0q0
 18:          1          0   ITS-MSI 16385 Edge      nvme0q1
 19:          0          2   ITS-MSI 16386 Edge      nvme0q2
";
const SAID: [LinuxFact; 4] = [
    LinuxFact::Reads { requested: 2, completed: 3 },
    LinuxFact::Pings { sent: 10, answered: 10 },
    LinuxFact::Affinities { moved: 6 },
    LinuxFact::Hotplugs { turns: 2 },
];
const TAKEN: u64 = 8;

fn judged(controller: Controller, change: impl Fn(&str) -> String, taken: u64) -> Result<()> {
    judged_of(&SAID, controller, change, taken)
}

fn judged_of(
    said: &[LinuxFact],
    controller: Controller,
    change: impl Fn(&str) -> String,
    taken: u64,
) -> Result<()> {
    let mut report = Report::default();
    let rows = change(ROWS);
    let rows = rows.lines().map(|line| LinuxFact::Row { line: line.to_owned().into() });
    for fact in said.iter().cloned().chain(rows) {
        report.fact(&fact);
    }
    let has_lines = report.rows.iter().any(|row| row.is_of("nvme0q1") && row.is_wired());
    let known = Known {
        report: &report,
        sent: &Sent::parse(&change(LOG)),
        expected: &Expected { cpus: 2, controller, has_lines, ..Expected::default() },
        reads: Reads { fewest: 2, discarded: 0, log: Path::new("") },
        taken: Some(taken),
    };
    known.judge()
}

#[test]
fn messages_after_the_last_suspend_are_counted() {
    let once = Sent {
        early: 1,
        early_seen: 1,
        admin_seen: 1,
        disk: [(0, 1), (1, 1), (2, 2)].into(),
        network: [(0x5587_c441_bfb0, 2), (0x5587_c441_c048, 2)].into(),
        ..Sent::default()
    };
    assert_eq!(Sent::parse(LOG), once);
    let twice = Sent::parse(&[LOG, LOG].concat());
    assert_eq!((twice.early, twice.early_seen, twice.disk), (6, 3, once.disk));
}

#[test]
fn messages_of_commands_may_coalesce_unless_the_driver_saw_each() {
    const MESSAGE: &str = "pci_nvme_irq_msix raising MSI-X IRQ vector 0\n";
    const SEEN: &str = "pci_nvme_mmio_doorbell_cq cqid 0 new_head 2\n";
    let judged = |before: &str, more: &str, taken| {
        let log = |text: &str| text.replacen(before, &[before, more].concat(), 1);
        judged(Controller::Its, log, taken)
    };
    let early = |more, taken| judged(MESSAGE, more, taken);
    let both = [SEEN, MESSAGE].concat();
    early(MESSAGE, TAKEN).and(early(MESSAGE, TAKEN + 1)).and(early(&both, TAKEN + 1)).unwrap();
    for (more, taken) in [(MESSAGE, TAKEN - 1), (MESSAGE, TAKEN + 2), (&both, TAKEN)] {
        assert!(early(more, taken).is_err(), "{taken} passes");
    }
    judged(SEEN, MESSAGE, TAKEN).unwrap();
    assert!(judged(SEEN, &[MESSAGE, SEEN].concat(), TAKEN).is_err());
}

#[test]
fn equal_counts_pass_on_each_controller_and_cpu() {
    judged(Controller::Its, ToOwned::to_owned, TAKEN).unwrap();
    let swapped = |text: &str| {
        let first = text.replace("1          0   ITS-MSI 16385", "0          1   ITS-MSI 16385");
        first.replace("0          2   ITS-MSI 16386", "2          0   ITS-MSI 16386")
    };
    assert_ne!(swapped(ROWS), ROWS);
    judged(Controller::Its, swapped, TAKEN).unwrap();
    let mbi = |text: &str| text.replace("ITS-MSI", "MSI");
    judged(Controller::Mbi, mbi, TAKEN + 1).unwrap();
    let newer = |text: &str| text.replace("ITS-MSI", "MBI-PCI-MSIX-0000:00:02.0");
    judged(Controller::Mbi, newer, TAKEN + 1).unwrap();
}

#[test]
fn an_event_that_is_taken_back_may_interrupt_once() {
    let judged = |taken: u64, after: &str| {
        let change = |text: &str| match text {
            LOG => format!("{LOG}gicv3_its_cmd_discard 1\ngicv3_its_cmd_{after} 0\n"),
            rows => rows.replace("0          2", &format!("0          {taken}")),
        };
        judged(Controller::Its, change, TAKEN - 2 + taken)
    };
    judged(2, "vsync").and(judged(3, "vsync")).unwrap();
    for (taken, after) in [(1, "vsync"), (4, "vsync"), (3, "sync")] {
        assert!(judged(taken, after).is_err(), "{taken} after {after} pass");
    }
}

#[test]
fn intx_counts_must_lie_between_completions_and_causes() {
    let judged = |disk: u64, network: u64, taken| {
        let change = |text: &str| {
            if text == LOG {
                let asserted = text.replace("pci_nvme_irq_msix", "pci_nvme_irq_pin");
                return asserted + &"pci_nvme_mmio_doorbell_cq cqid 1 new_head 1\n".repeat(3);
            }
            format!(
                " 13: 1 0 GICv3 33 Level uart-pl011\n 18: {disk} 0 GICv3 36 Level nvme0q0, \
                 nvme0q1\n 17: {network} 2 GICv3 37 Level virtio0\n"
            )
        };
        judged_of(&SAID, Controller::Its, change, taken)
    };
    judged(3, 1, 7).and(judged(5, 2, 10)).unwrap();
    for (disk, network, taken) in [(2, 1, 6), (6, 1, 10), (3, 3, 9), (3, 1, 6), (3, 1, 8)] {
        assert!(judged(disk, network, taken).is_err(), "{disk}, {network}, {taken} pass");
    }
}

#[test]
fn retriggered_interrupts_do_not_count_as_device_messages() {
    let judged = |own: &[LinuxFact], taken| {
        let rows = |text: &str| {
            let retriggered = text.replace(" 17:          1", " 17:          2");
            retriggered.replace("15:          1", "15:          2").replace("ITS", "DLPI")
        };
        judged_of(&[&SAID, own].concat(), Controller::DirectLpi, rows, taken)
    };
    let retriggered = |taken| LinuxFact::Retriggered { interrupt: 17, taken };
    let resent = LinuxFact::Resent { interrupt: 15 };
    judged(&[retriggered(1), resent.clone()], TAKEN + 2).unwrap();
    for (own, error) in [
        (vec![resent.clone()], "2 interrupts of 1 commands"),
        (vec![retriggered(1)], "3 interrupts of 2 messages"),
        (vec![retriggered(0), resent], "2 interrupts of 1 commands"),
    ] {
        let judged = judged(&own, TAKEN + 2).unwrap_err().to_string();
        assert!(judged.contains(error), "{judged}");
    }
    let none = judged_of(&SAID, Controller::DirectLpi, |it| it.replace("ITS", "DLPI"), TAKEN);
    assert!(none.is_err_and(|error| error.to_string().contains("retriggered no interrupt")));
}

#[test]
fn messages_of_a_replaced_kernel_are_counted_exactly() {
    let replaces = LinuxFact::Replaces { resent: 7 };
    let judged =
        |said: &[LinuxFact], taken| judged_of(said, Controller::Its, ToOwned::to_owned, taken);
    let said = [&SAID[..], &[replaces]].concat();
    judged(&said, TAKEN + 7).unwrap();
    for (said, taken) in [(&said[..], TAKEN + 6), (&said, TAKEN + 8), (&SAID, TAKEN + 7)] {
        assert!(judged(said, taken).is_err(), "{taken} passes");
    }
}

#[test]
fn mismatched_message_counts_fail() {
    for (from, to) in [
        ("          1          1   ITS", "          2          0   ITS"),
        ("          1          1   ITS", "          2          1   ITS"),
        ("          0          1   ITS", "          2          1   ITS"),
        ("          0          1   ITS", "          0          0   ITS"),
        ("          0          2   ITS", "          0          1   ITS"),
        ("          0          2   ITS", "          2          0   ITS"),
        ("ITS-MSI 16385", "MSI 16385"),
        ("nvme0q2", "nvme0q3"),
        ("vector 2\nvirtio", "vector 1\nvirtio"),
        ("vector 0\nvirtio", "vector 5\nvirtio"),
    ] {
        assert!([LOG, ROWS].iter().any(|text| text.contains(from)), "neither text contains {from}");
        let changed = |text: &str| text.replacen(from, to, 1);
        assert!(judged(Controller::Its, changed, TAKEN).is_err(), "`{to}` passes");
    }
    for (index, fact) in [
        (0, LinuxFact::Reads { requested: 1, completed: 2 }),
        (0, LinuxFact::Reads { requested: 2, completed: 4 }),
        (1, LinuxFact::Pings { sent: 10, answered: 9 }),
        (2, LinuxFact::Affinities { moved: 5 }),
        (3, LinuxFact::Hotplugs { turns: 1 }),
    ] {
        let mut said = SAID;
        said[index] = fact;
        let judged = judged_of(&said, Controller::Its, ToOwned::to_owned, TAKEN);
        assert!(judged.is_err(), "{:?} passes", said[index]);
    }
    assert!(judged(Controller::Its, ToOwned::to_owned, TAKEN - 1).is_err());
    assert!(judged(Controller::Mbi, ToOwned::to_owned, TAKEN).is_err());
}
