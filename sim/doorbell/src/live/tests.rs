//! Tests that plant a fault in the files of a Linux system, and expect exactly this fault to be
//! found.

mod machine;

use self::machine::{
    COMMAND, COMMAND_LINE, FUNCTION, LOG, MSI, MSIX, REQUESTER, config, config_with, fallen_back,
    firmware, irq, linux, map, map_to, silent, sound, with_function, with_integrated_controller,
    with_iommu, with_msi,
};
use super::fixture::Tree;
use super::report::{DeviceRow, Report};
use gic_arch::IntId;
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Fact, IntIdSpan, MsiRouting, Status,
    WiredInterrupt,
};
use msi_types::explain::{Obstacle, SetupFault};
use msi_types::{Cpu, DeviceId, MsiMessage, RequesterId, Trigger};

fn device(tree: &Tree) -> DeviceRow {
    let mut report = Report::of(&tree.root());
    assert_eq!((report.problems.as_slice(), report.devices.len()), (&[][..], 1));
    report.devices.remove(0)
}

/// Checks that this obstacle is found, and that it counts as a fault if `fault` is `true`.
fn has(tree: &Tree, obstacle: Obstacle, fault: bool) {
    let device = device(tree);
    assert_eq!((device.explanation.obstacle(), device.fault), (Some(obstacle), fault));
}

#[test]
fn a_working_function_has_no_finding() {
    let device = device(&linux(&sound()));
    assert_eq!(device.explanation.obstacle(), None);
    assert!(!device.is_finding());
    assert_eq!(device.firmware.device_id, Some(0x110));
    assert_eq!(device.firmware.controller.as_deref(), Some("/intc@8000000/its@8080000"));
    let interrupts = device.linux.interrupts.iter();
    assert!(interrupts.map(|one| (one.number, one.irq.count)).eq([(26, 5), (27, 5)]));
    let text = device.explanation.to_string();
    assert_eq!(
        text,
        "bus: bus mastering is enabled\n\
         doorbell: a controller receives messages at 0x8090040\n\
         translation: the device has DeviceID 0x110\n\
         target: routed to CPU 0\n\
         dispatch: IRQ number 26\n\
         handler: the handler has run 5 times\n\
         no obstacle was found\n\
         not examined: endpoint, configuration, pending, interface\n"
    );
}

#[test]
fn the_reason_for_an_intx_fallback_is_reported() {
    let requester = REQUESTER;
    let mut off = sound();
    off.controllers[0].status = Fact::stated(Status::Disabled);
    let nowhere = firmware(map_to(u32::MAX, 0x100));
    let silent_host = firmware(MsiRouting::default());
    for (firmware, fault) in [
        (firmware(map(0x10)), SetupFault::OutsideMap { requester }),
        (silent_host, SetupFault::NoController { requester }),
        (off, SetupFault::ControllerDisabled),
        (nowhere, SetupFault::BrokenEntry { requester }),
    ] {
        has(&fallen_back(&firmware), Obstacle::Setup(fault), true);
    }
    let off = fallen_back(&sound()).file(COMMAND_LINE, "quiet pci=nomsi\n");
    has(&off, Obstacle::Setup(SetupFault::TurnedOff), true);
    let off = fallen_back(&sound()).file(COMMAND_LINE, "irqchip.gicv3_nolpi=1\n");
    has(&off, Obstacle::Setup(SetupFault::LpisTurnedOff), true);
    let forbidden = fallen_back(&sound()).file(&format!("{FUNCTION}/msi_bus"), "0\n");
    has(&forbidden, Obstacle::Setup(SetupFault::Forbidden), true);
    let unused = ["26", "27"].into_iter().fold(fallen_back(&sound()), |tree, number| {
        tree.without(&format!("sys/kernel/irq/{number}"))
    });
    has(&unused, Obstacle::Setup(SetupFault::ControllerUnused), true);
}

#[test]
fn a_device_id_beyond_the_device_table_is_reported() {
    let line = |entries| {
        format!("ITS@0x08080000: allocated {entries} Devices @4 (flat, esz 8, psz 4K, shr 1)\n")
    };
    let tree = fallen_back(&sound()).file(LOG, &line(0x110));
    let fault = SetupFault::BeyondTable { device: DeviceId::new(0x110), room: 0x110 };
    has(&tree, Obstacle::Setup(fault), true);
    let tree = tree.file(LOG, &line(0x111));
    has(&tree, Obstacle::Setup(SetupFault::MessagesUnused), false);
    assert_eq!(Report::of(&tree.root()).controllers[0].room, Some(0x111));
}

#[test]
fn a_silent_function_with_a_wide_device_id_is_noted() {
    let wide = |first| firmware(map_to(first, 0x100));
    let notes = |tree: &Tree| Report::of(&tree.root()).notes;
    let tree = silent(&wide(0x1_0000));
    let note = &notes(&tree)[0];
    assert!(note.contains("DeviceID 0x10010"), "{note}");
    assert!(note.ends_with("the kernel's log does not tell"), "{note}");
    let line = "ITS@0x8080000: allocated 8 Devices @4 (indirect, esz 8, psz 64K, shr 1)";
    let note = &notes(&tree.file(LOG, line))[0];
    assert!(note.ends_with("at most 0x10000"), "{note}");
    assert_eq!(notes(&linux(&wide(0x1_0000))), [""; 0]);
    assert_eq!(notes(&silent(&wide(0xffef))), [""; 0]);
}

#[test]
fn an_intx_fallback_is_explained_with_its_interrupt_line() {
    let tree = fallen_back(&firmware(map(0x10)));
    let line = device(&tree).linux.interrupts.remove(0);
    assert_eq!((line.number, line.intid, line.irq.count), (19, Some(37), 4));
    assert_eq!(
        line.explanation.to_string(),
        "endpoint: the line is low\ndoorbell: input of INTID 37\ndispatch: IRQ number 19\n\
         handler: the handler has run 4 times\nno obstacle was found\n\
         not examined: configuration, pending, target, interface\n"
    );
    let off = tree.bytes(&format!("{FUNCTION}/config"), &config_with(&[(COMMAND + 1, 4)]));
    let line = device(&off).linux.interrupts.remove(0);
    assert_eq!(line.explanation.obstacle(), Some(Obstacle::Setup(SetupFault::IntxDisabled)));
}

#[test]
fn states_of_a_working_machine_are_not_faults() {
    let unbound = fallen_back(&sound()).without(&format!("{FUNCTION}/driver"));
    has(&unbound, Obstacle::Setup(SetupFault::NoDriver), false);
    let plain = |pin| config_with(&[(0x34, 0), (0x3d, pin)]);
    let bare = fallen_back(&sound()).bytes(&format!("{FUNCTION}/config"), &plain(0));
    has(&bare, Obstacle::Setup(SetupFault::NoCapability), false);
    let idle = fallen_back(&sound()).without("sys/kernel/irq/19");
    has(&idle, Obstacle::Setup(SetupFault::NotAllocated), false);
    let wired = fallen_back(&sound()).bytes(&format!("{FUNCTION}/config"), &plain(1));
    assert_eq!(device(&wired).explanation.obstacle(), None);
    let asleep = linux(&sound()).file(&format!("{FUNCTION}/power_state"), "D3hot\n");
    has(&asleep, Obstacle::PoweredDown { state: 3 }, false);
    let power = config_with(&[(MSI, 1), (MSI + 4, 3)]);
    let asleep = linux(&sound()).bytes(&format!("{FUNCTION}/config"), &power);
    has(&asleep, Obstacle::PoweredDown { state: 3 }, false);
    let unused = linux(&sound()).file("sys/kernel/irq/26/actions", "\n");
    has(&unused, Obstacle::NotRequested, false);
    let debug = "dstate: 0x1\n  IRQD_IRQ_DISABLED\n";
    let off = linux(&sound()).file("sys/kernel/debug/irq/irqs/26", debug);
    has(&off, Obstacle::DisabledByDriver, false);
}

#[test]
fn a_driver_that_prefers_intx_is_not_a_fault() {
    let tree = fallen_back(&sound());
    has(&tree, Obstacle::Setup(SetupFault::MessagesUnused), false);
    let off = tree.bytes(&format!("{FUNCTION}/config"), &config_with(&[(COMMAND + 1, 4)]));
    has(&off, Obstacle::Setup(SetupFault::IntxDisabled), true);
}

#[test]
fn an_idle_vfio_driver_has_no_handler() {
    let idle = fallen_back(&sound())
        .without(&format!("{FUNCTION}/driver"))
        .link(&format!("{FUNCTION}/driver"), "../../../bus/pci/drivers/vfio-pci");
    has(&idle, Obstacle::Setup(SetupFault::NoProgram), false);
    assert!(device(&idle).linux.interrupts.is_empty(), "another function's handler");
    let used = idle.file("sys/kernel/irq/19/actions", "nvme0q0,vfio-intx(0000:00:02.0)\n");
    assert_eq!(device(&used).linux.interrupts[0].number, 19);
}

#[test]
fn a_bridge_that_forbids_messages_below_it_may_send_its_own() {
    let forbidden = fallen_back(&sound()).file(&format!("{FUNCTION}/msi_bus"), "0\n");
    has(&forbidden, Obstacle::Setup(SetupFault::Forbidden), true);
    let bridge = config_with(&[(0x0e, 1), (0x19, 1)]);
    let bridge = forbidden.bytes(&format!("{FUNCTION}/config"), &bridge);
    has(&bridge, Obstacle::Setup(SetupFault::MessagesUnused), false);
}

#[test]
fn faults_of_an_msix_function_are_reported() {
    for (changes, obstacle) in [
        (&[(MSIX + 3, 0)], Obstacle::MessagesDisabled),
        (&[(MSIX + 3, 0xc0)], Obstacle::FunctionMasked),
        (&[(COMMAND, 2)], Obstacle::BusMasterDisabled),
        (&[(COMMAND, 4)], Obstacle::MemoryDisabled),
    ] {
        let config = config_with(changes);
        let tree = linux(&sound()).bytes(&format!("{FUNCTION}/config"), &config);
        has(&tree, obstacle, true);
    }
    let gone = linux(&sound()).bytes(&format!("{FUNCTION}/config"), &[0xff; 256]);
    has(&gone, Obstacle::Absent, true);
    let virtual_function = config_with(&[(0, 0xff), (1, 0xff), (2, 0xff), (3, 0xff), (COMMAND, 4)]);
    let tree = linux(&sound()).bytes(&format!("{FUNCTION}/config"), &virtual_function);
    assert_eq!(device(&tree).explanation.obstacle(), None);
    let tree = linux(&sound()).file("sys/devices/system/cpu/online", "0\n");
    has(&tree, Obstacle::Offline { cpu: Cpu::new(1) }, true);
}

#[test]
fn faults_of_an_msi_function_are_reported() {
    let on = (MSI + 2, 0x81);
    assert_eq!(device(&with_msi(&config_with(&[on]))).explanation.obstacle(), None);
    let off = with_msi(&config());
    has(&off, Obstacle::MessagesDisabled, true);
    let masked = with_msi(&config_with(&[on, (MSI + 0x10, 2), (MSI + 0x14, 2)]));
    has(&masked, Obstacle::VectorMasked { vector: 1, pending: true }, false);
    let elsewhere = config_with(&[on, (MSI + 5, 1)]);
    let doorbell = Obstacle::NoDoorbell { address: 0x809_0140, doorbell: Some(0x809_0040) };
    has(&with_msi(&elsewhere), doorbell, true);
    let tree = with_msi(&elsewhere)
        .link(&format!("{FUNCTION}/iommu_group"), "../../../../kernel/iommu_groups/4")
        .file("sys/kernel/iommu_groups/4/type", "DMA\n");
    assert_eq!(device(&tree).explanation.obstacle(), None, "the address is translated");
    let tree = tree.file("sys/kernel/iommu_groups/4/type", "identity\n");
    has(&tree, doorbell, true);
}

#[test]
fn a_missing_stream_id_is_a_fault_if_no_message_arrives() {
    let requester = REQUESTER;
    let fault = Obstacle::Setup(SetupFault::NoStream { requester });
    let tree = silent(&with_iommu(0x10));
    has(&tree, fault, true);
    let bypass = tree.file(COMMAND_LINE, "arm-smmu-v3.disable_bypass=0\n");
    assert!(!device(&bypass).is_finding());
    assert!(!device(&linux(&with_iommu(0x10))).is_finding());
    let known = device(&silent(&with_iommu(0x20)));
    assert_eq!((known.firmware.stream_id, known.is_finding()), (Some(0x10), false));
    let mut off = with_iommu(0x10);
    off.iommus[0].status = Fact::stated(Status::Disabled);
    assert!(!device(&silent(&off)).is_finding());
}

#[test]
fn an_assumed_device_id_is_a_fault_if_no_message_arrives() {
    let fault = SetupFault::AssumedDeviceId { device: DeviceId::new(0x10) };
    let quiet = silent(&firmware(map(0x10)));
    has(&quiet, Obstacle::Setup(fault), true);
    let works = device(&linux(&firmware(map(0x10))));
    assert_eq!((works.explanation.obstacle(), works.fault), (None, false));
    assert_eq!((works.firmware.device_id, works.linux.assumed_device_id), (None, Some(0x10)));
    assert!(works.differences[0].contains("no entry for requester 0x0010"), "{works:?}");
}

#[test]
fn use_of_an_unexpected_controller_is_reported() {
    let tree = linux(&sound()).file("sys/kernel/irq/27/chip_name", "GICv2m-PCI-MSIX\n");
    has(&tree, Obstacle::Setup(SetupFault::OtherController), true);
}

#[test]
fn a_host_bridge_with_an_integrated_controller_is_not_a_fault() {
    let firmware = with_integrated_controller();
    let tree = linux(&firmware);
    let messages = [26, 27]
        .into_iter()
        .fold(tree, |tree, irq| tree.file(&format!("sys/kernel/irq/{irq}/chip_name"), "PCI-MSI\n"));
    let works = device(&messages);
    assert_eq!((works.explanation.obstacle(), works.is_finding()), (None, false), "{works:?}");
    let pin = device(&fallen_back(&firmware));
    assert_eq!((pin.explanation.obstacle(), pin.is_finding()), (None, false), "{pin:?}");
}

/// The controller sees the writes of the functions below the port, but not those of the port.
#[test]
fn an_integrated_controller_does_not_serve_its_root_port() {
    let mut description = with_integrated_controller();
    let host = &mut description.hosts[0];
    let registers = host.config.as_ref().unwrap().region();
    host.own_controller = Some(ControllerIndex::new(0));
    let mut own = Controller::new(host.id.clone(), ControllerKind::ImsiRx, Some(registers));
    let line = WiredInterrupt { intid: IntId::new(172), trigger: Trigger::Level };
    own.lines = vec![Fact::stated(line)];
    description.controllers = vec![own];
    let with = |config: &[u8]| {
        let tree = linux(&description).bytes(&format!("{FUNCTION}/config"), config);
        [26, 27].into_iter().fold(tree, |tree, number| irq(tree, number, "PCI-MSI", "0", "0,0"))
    };
    let port = with(&config_with(&[(0x0e, 1), (0x19, 1), (0x1a, 1)]));
    has(&port, Obstacle::Setup(SetupFault::RootPort), false);
    assert_eq!(device(&with(&config())).explanation.obstacle(), None);
}

/// A Raspberry Pi 5's MIP.
#[test]
fn a_controller_of_an_unknown_kind_is_not_called_unused() {
    let with = |kind: ControllerKind| {
        let mut description = sound();
        let controller = &mut description.controllers[0];
        if kind == ControllerKind::Mip {
            let message = MsiMessage { address: 0xff_ffff_f000, data: 0 };
            controller.message = Some(Fact::stated(message));
            let spis = IntIdSpan::new(IntId::new(160), 64).unwrap();
            controller.ranges = vec![Fact::stated(spis)];
        }
        controller.kind = kind;
        description
    };
    let other = ControllerKind::Other("vendor,msi".to_owned());
    for (kind, used) in [(ControllerKind::Mip, Some(false)), (other, None)] {
        let name = kind.to_string();
        let tree = fallen_back(&with(kind));
        assert_eq!(Report::of(&tree.root()).controllers[0].used, used, "{name}");
        assert_eq!(device(&tree).fault, used.is_some(), "{name}");
    }
    let tree = linux(&with(ControllerKind::Mip));
    let tree = [26, 27].into_iter().fold(tree, |tree, irq| {
        tree.file(&format!("sys/kernel/irq/{irq}/chip_name"), "MIP-MSI-0000:00:02.0\n")
    });
    assert_eq!(Report::of(&tree.root()).controllers[0].used, Some(true));
    assert!(!device(&tree).is_finding());
}

#[test]
fn a_managed_interrupt_of_offline_cpus_is_not_a_fault() {
    let tree = linux(&sound())
        .file("sys/devices/system/cpu/online", "0\n")
        .file("proc/irq/27/smp_affinity_list", "1\n");
    has(&tree, Obstacle::ShutDown, false);
    let never_on = tree.file("proc/irq/27/effective_affinity_list", "\n");
    has(&never_on, Obstacle::ShutDown, false);
    let tree = never_on.file("proc/irq/27/effective_affinity_list", "1\n");
    let moved = tree.file("proc/irq/27/smp_affinity_list", "0-1\n");
    has(&moved, Obstacle::Offline { cpu: Cpu::new(1) }, true);
}

#[test]
fn a_bridge_without_bus_mastering_is_reported() {
    const PORT: &str = "sys/bus/pci/devices/0000:00:01.0";
    let mut port = vec![0; 256];
    (port[COMMAND], port[0x0e], port[0x18], port[0x19], port[0x1a]) = (2, 1, 0, 1, 1);
    (port[0x0a], port[0x0b]) = (4, 6);
    let tree = linux(&sound())
        .bytes(&format!("{PORT}/config"), &port)
        .link(&format!("{PORT}/driver"), "../../../bus/pci/drivers/pcieport");
    let report = Report::of(&with_function(tree, "0000:01:00.0", "0,0").root());
    let below = report.devices.iter().find(|one| one.id == "0000:01:00.0").unwrap();
    let bridge = RequesterId::new(8);
    assert_eq!(below.explanation.obstacle(), Some(Obstacle::BridgeDisabled { bridge }));
    assert!(below.fault && report.notes[0].contains("on bus 0000:01"), "{:?}", report.notes);
}

#[test]
fn only_functions_without_new_interrupts_are_silent() {
    let before = Report::of(&linux(&sound()).root());
    let silent = before.silent_until(&before);
    assert!(silent.len() == 1 && silent[0].explanation.obstacle().is_none());
    let counted = linux(&sound()).file("sys/kernel/irq/27/per_cpu_count", "0,6\n");
    assert!(before.silent_until(&Report::of(&counted.root())).is_empty());
    let asleep = linux(&sound()).file(&format!("{FUNCTION}/power_state"), "D3hot\n");
    let later = Report::of(&asleep.root());
    let obstacle = before.silent_until(&later)[0].explanation.obstacle();
    assert_eq!(obstacle, Some(Obstacle::PoweredDown { state: 3 }));
}

#[test]
fn messages_that_never_arrive_are_a_finding() {
    let report = Report::of(&silent(&sound()).root());
    assert!(report.silent && report.has_findings() && report.notes.is_empty());
    assert!(!Report::of(&linux(&sound()).root()).silent);
}

#[test]
fn a_silent_function_beside_others_is_noted() {
    let with_count =
        |count| Report::of(&with_function(linux(&sound()), "0000:00:03.0", count).root()).notes;
    let note = &with_count("0,0")[0];
    assert!(note.starts_with("no message of 0000:00:03.0 has arrived"), "{note}");
    assert!(note.contains("messages of 1 other function on the bus have"), "{note}");
    assert_eq!(with_count("0,7"), [""; 0]);
}

#[test]
fn firmware_without_a_gic_yields_no_obstacle() {
    let tree = fallen_back(&sound()).without("sys/firmware");
    assert_eq!(device(&tree).explanation.obstacle(), None);
    let mut x86 = sound();
    (x86.gic, x86.controllers[0].status) = (None, Fact::stated(Status::Disabled));
    assert_eq!(device(&fallen_back(&x86)).explanation.obstacle(), None);
}

#[test]
fn unreadable_capabilities_are_a_problem_but_not_a_finding() {
    let tree = linux(&sound()).bytes(&format!("{FUNCTION}/config"), &config()[..64]);
    let report = Report::of(&tree.root());
    assert_eq!(report.problems[0].path, "/sys/bus/pci/devices/*/config");
    assert!(!report.has_findings());
}

#[test]
fn malformed_sysfs_and_procfs_files_do_not_panic() {
    let files = [
        "sys/firmware/fdt",
        "sys/firmware/acpi/tables/APIC",
        "proc/interrupts",
        COMMAND_LINE,
        "sys/devices/system/cpu/online",
        LOG,
        "sys/kernel/irq/26/hwirq",
        "sys/kernel/irq/26/per_cpu_count",
        "sys/kernel/debug/irq/irqs/26",
        "proc/irq/26/effective_affinity_list",
        "sys/bus/pci/devices/0000:00:02.0/config",
        "sys/bus/pci/devices/0000:00:02.0/irq",
        "sys/bus/pci/devices/0000:00:02.0/power_state",
        "sys/bus/pci/devices/0000:00:02.0/msi_irqs/26",
    ];
    let contents: [&[u8]; 7] = [
        b"",
        b"\xff\xff\xff\xff",
        &[0xff; 300],
        &[0; 300],
        b"99999999999999999999-,:",
        b"D\xc3\xa9",
        b"0-",
    ];
    for content in contents {
        let tree = files.into_iter().fold(linux(&sound()), |tree, file| {
            let tree = tree.bytes(file, content);
            assert!(serde_json::to_string(&Report::of(&tree.root())).is_ok(), "{file}");
            tree
        });
        assert_eq!(Report::of(&tree.root()).devices.len(), 1);
    }
}
