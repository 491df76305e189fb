//! Tests that the kernel's options (placement, priorities, EOI mode) reach the drivers.
//!
//! Tests which messages a kernel may store, given the surroundings that it states and the signs of
//! a hypervisor in firmware's description.
//!
//! The message store of the tests' devices.

use crate::machine::{CPU0, CPU1, FUNCTION, Machine, function};
use gic_arch::{IntId, Lpi, Priority, SgiId};
use gic_bringup::{DriverError, Irqchip, Options};
use gic_driver::cpu_interface::Active;
use gic_driver::{GicError, Priorities};
use gic_firmware::Fact;
use irq_domain::{AffinityPolicy, IrqContext, MsiDevice, MsiDeviceConfig, Placement, WiredRequest};
use msi_types::{
    Cpu, Fit, HwIrq, Hypervisor, Level, Line, Masking, MessageStore, MsiMessage, Rewrite, Shape,
    Storage, StoreError, StoreUpdate, Surroundings, Trigger,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const SPI: u32 = 40;
const ORDINARY: Priority = Priority::new(0x80);
const THRESHOLD: Priority = Priority::new(0x60);
const URGENT: Priority = Priority::new(0x40);

struct Last;

impl AffinityPolicy for Last {
    fn choose(&self, of: &Placement<'_>) -> Cpu {
        *of.online.last().unwrap()
    }
}

#[test]
fn the_affinity_policy_chooses_the_target_cpu() {
    let machine = Machine::new();
    let chip = machine.boot_with(&Options::default().with_policy(Some(Arc::new(Last))));
    let (device, _) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    for slot in 0..2 {
        let handle = device.request(slot, "queue", |_| {}).unwrap();
        assert_eq!(handle.effective_affinity(), CPU1);
    }
}

#[test]
fn urgent_interrupts_are_delivered_under_the_priority_mask() {
    let machine = Machine::new();
    let priorities = Priorities::default().with_wired(URGENT).with_lpi(URGENT);
    let chip = machine.boot_with(&Options::default().with_priorities(priorities));
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let queues = [0, 1].map(|slot| device.request(slot, "queue", |_| {}).unwrap());
    let lines = [SPI, SPI + 1].map(|spi| {
        let request = WiredRequest::new(HwIrq::new(spi), Trigger::Edge, "line");
        chip.interrupts().request_wired(request, |_| {}).unwrap()
    });
    for [ordinary, urgent] in [&queues, &lines] {
        chip.set_priority(ordinary.hwirq(), ORDINARY).unwrap();
        ordinary.set_affinity(CPU0).unwrap();
        urgent.set_affinity(CPU1).unwrap();
    }
    let gic = chip.gic().v3().unwrap();
    for cpu in [CPU0, CPU1] {
        let _stays = machine.execute(cpu, |own| gic.cpu_interface(own).mask_below(THRESHOLD));
    }
    for slot in [0, 1] {
        machine.send(&messages, slot);
    }
    for spi in [SPI, SPI + 1] {
        machine.set_line(Line::Spi(spi), Level::High);
    }
    assert!(!machine.wants(CPU0), "ordinary");
    machine.settle(&chip);
    assert_eq!(queues.map(|handle| handle.count()), [0, 1]);
    assert_eq!(lines.map(|handle| handle.count()), [0, 1]);
}

#[test]
fn set_priority_refuses_an_unmapped_lpi() {
    let chip = Machine::new().boot();
    let refused = chip.set_priority(Lpi::FIRST.intid().hwirq(), URGENT);
    assert_eq!(refused, Err(DriverError::NotMapped(Lpi::FIRST)));
    assert!(matches!(chip.set_priority(HwIrq::new(1022), URGENT), Err(DriverError::Gic(_))));
}

#[test]
fn a_handed_over_spi_stays_active_until_deactivated() {
    let machine = Arc::new(Machine::new());
    let kernel = machine.kernel.clone();
    let description = machine.description();
    let chip = Irqchip::split(kernel.clone(), kernel, description, &Options::default()).unwrap();
    machine.execute(CPU0, |own| chip.cpu_on(CPU0, own, |_| unreachable!())).unwrap();
    let (runs, line) = (AtomicU32::new(0), machine.clone());
    let lower_at_second_run = move |_: &IrqContext<'_>| {
        if runs.fetch_add(1, Ordering::Relaxed) == 1 {
            line.set_line(Line::Spi(SPI), Level::Low);
        }
    };
    let request = WiredRequest::new(HwIrq::new(SPI), Trigger::Level, "uart");
    let uart = chip.interrupts().request_wired(request, lower_at_second_run).unwrap();
    let physical = chip.gic().v3().unwrap().interrupt(IntId::new(SPI)).unwrap();
    machine.set_line(Line::Spi(SPI), Level::High);
    machine.execute(CPU0, |own| {
        let hand_over = |active: Active| {
            active.hand_over();
            None
        };
        chip.handle_irq_with(CPU0, own, hand_over, |_, why| panic!("{why:?}"));
    });
    assert_eq!(uart.count(), 1);
    assert!(physical.is_active() && !machine.wants(CPU0));
    physical.deactivate();
    assert!(machine.wants(CPU0), "its line is still high");
    machine.execute(CPU0, |own| chip.handle_irq(CPU0, own, |_, why| panic!("{why:?}")));
    assert_eq!(uart.count(), 2);
    assert!(!physical.is_active(), "without a guest, the kernel deactivates it");
}

#[test]
fn an_ipi_runs_the_receivers_handler() {
    let machine = Machine::new();
    let chip = machine.boot();
    let sgi = SgiId::new(3).unwrap();
    let hwirq = sgi.intid().hwirq();
    let ipi = chip.interrupts().request_per_cpu(hwirq, Trigger::Edge, "ipi", |_| {}).unwrap();
    for cpu in [CPU0, CPU1] {
        machine.execute(cpu, |_| ipi.enable_here());
    }
    machine.execute(CPU0, |own| chip.send_ipi(sgi, &[CPU1], own)).unwrap();
    assert!(!machine.wants(CPU0) && machine.wants(CPU1));
    machine.settle(&chip);
    machine.execute(CPU1, |own| chip.send_ipi_to_others(sgi, own));
    assert!(machine.wants(CPU0) && !machine.wants(CPU1));
    machine.settle(&chip);
    machine.execute(CPU0, |own| chip.send_ipi(sgi, &[CPU0, CPU1], own)).unwrap();
    machine.settle(&chip);
    assert_eq!(ipi.count(), 4);
    let nobody = machine.execute(CPU0, |own| chip.send_ipi(sgi, &[CPU1, Cpu::new(2)], own));
    assert_eq!(nobody, Err(GicError::UnknownCpu(Cpu::new(2))));
    assert!(!machine.wants(CPU1), "the SGI must be sent to all CPUs or to none");
}

/// Returns whether the irqchip accepts IMS. A store that the bus defines always works.
fn accepts_ims(options: &Options<'_>, is_named: bool) -> bool {
    let machine = Machine::new().described(|machine| {
        machine.hypervisor = is_named.then(|| Fact::stated("xen,xen".into()));
    });
    let chip = machine.boot_with(options);
    let (nic, _) = function(&chip);
    assert_eq!(nic.allocate(Shape::Independent, 2..=2).unwrap().len(), 2);
    drop(nic);
    let store = Messages(Mutex::default(), Storage::Device);
    let parent = chip.pci_parent(&chip.description().hosts[0], FUNCTION).unwrap();
    let config = MsiDeviceConfig::new("ims", FUNCTION, parent, Arc::new(store));
    let ims = MsiDevice::attach(chip.interrupts(), config);
    if let Err(refused) = &ims {
        assert!(refused.to_string().contains("Surroundings::BareMetal"), "{refused}");
    }
    assert_eq!(chip.surroundings() == Surroundings::BareMetal, ims.is_ok());
    ims.is_ok()
}

#[test]
fn only_stated_bare_metal_without_hypervisor_accepts_ims() {
    let traps = Options::default().with_surroundings(Surroundings::Guest(Hypervisor::Traps));
    for (options, is_named, expected) in [
        (Options::default(), false, false),
        (traps, false, false),
        (Options::bare_metal(), false, true),
        (Options::bare_metal(), true, false),
    ] {
        assert_eq!(accepts_ims(&options, is_named), expected, "{options:?}, {is_named}");
    }
}

/// A device's message store, in a place that the bus defines or in memory of the device's own.
pub(crate) struct Messages(pub(crate) Mutex<[MsiMessage; 4]>, pub(crate) Storage);

impl Default for Messages {
    fn default() -> Self {
        Self(Mutex::default(), Storage::Bus)
    }
}

impl StoreUpdate for &Messages {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.lock().unwrap()[usize::from(slot)] = message;
    }

    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for Messages {
    fn slots(&self) -> u16 {
        4
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn storage(&self) -> Storage {
        self.1
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut &*self);
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
