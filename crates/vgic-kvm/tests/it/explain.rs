//! Explanations of interrupts at KVM's controller, of which a view takes the place.

use crate::board::save_machine;
use crate::guest::{CONFIG, Guest, RAM_BYTES, TRANSLATIONS};
use doorbell_test_support::guest::{ITS, mapd};
use gic_arch::{gicr, gits, icc};
use msi_types::explain::{ExplainInput, Explanation, Fact, Group, Obstacle, Unexamined};
use msi_types::{Cpu, DeviceId, EventId, HwIrq, Level, Line, MsiMessage, SetLine};
use std::sync::{Arc, Mutex};
use vgic::{AccessWidth, GuestMemory, Vgic, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno, control};
use vgic_kvm::snapshot::{KvmAttributes, SnapshotCpu};
use vgic_kvm::{KvmDevice, KvmExplainer, KvmView, NotExamined, kvm_config, kvm_its_config};

const DOORBELL: u64 = ITS + 0x1_0040;
const DEVICE: DeviceId = DeviceId::new(1);
const FIRST: HwIrq = HwIrq::new(8192);
const SPI: u32 = 40;

/// KVM's devices. Fails with `EBUSY` from the access at which a vCPU starts to run.
#[derive(Clone)]
struct Kernel<'a> {
    view: Arc<Mutex<KvmView<'a>>>,
    accesses_left: Arc<Mutex<usize>>,
}

impl<'a> Kernel<'a> {
    fn new(view: KvmView<'a>) -> Self {
        Self { view: Arc::new(Mutex::new(view)), accesses_left: Arc::new(Mutex::new(usize::MAX)) }
    }

    fn access(&self) -> Result<(), Errno> {
        let mut left = self.accesses_left.lock().unwrap();
        *left = left.checked_sub(1).ok_or(Errno::Busy)?;
        Ok(())
    }
}

impl KvmAttributes for Kernel<'_> {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        self.access()?;
        self.view.lock().unwrap().get(device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        self.access()?;
        self.view.lock().unwrap().set(device, attribute, value)
    }
}

/// Calls `ask` with KVM's controller in the state of this guest's.
fn examine<T>(
    guest: &mut Guest,
    ask: impl FnOnce(&Kernel<'_>, &KvmExplainer<Kernel<'_>>) -> T,
) -> T {
    let saved = guest.save();
    let kernel = Kernel::new(KvmView::new(guest.gic.config(), saved, &*guest.ram).unwrap());
    let explainer = KvmExplainer::new(kernel.clone(), guest.cpus(), 1, guest.ram.clone());
    ask(&kernel, &explainer)
}

fn message(sender: u32, event: u32) -> impl Fn(&dyn ExplainInput) -> Explanation {
    let message = MsiMessage { address: DOORBELL, data: event };
    move |controller| controller.explain_message(Some(DeviceId::new(sender)), message)
}

fn obstacle(
    guest: &mut Guest,
    question: impl Fn(&dyn ExplainInput) -> Explanation,
) -> Option<Obstacle> {
    examine(guest, |_, explainer| question(explainer).obstacle())
}

#[test]
fn explain_traces_a_message_to_the_cpu() {
    let mut guest = Guest::after_messages();
    let explanation = examine(&mut guest, |_, explainer| message(1, 0)(explainer));
    let event = EventId::new(0);
    assert!(explanation.facts().eq([
        Fact::Doorbell(DOORBELL),
        Fact::Event { device: DEVICE, event, interrupt: FIRST },
        Fact::Enabled(0xa0),
        Fact::Pending(FIRST),
        Fact::Routed(Cpu::new(0)),
        Fact::Signaled(Cpu::new(0)),
    ]));
    assert_eq!(explanation.obstacle(), None);
    assert!(explanation.unexamined().eq([Unexamined::ExceptionMask]));
}

#[test]
fn explain_names_the_obstacle_of_a_message() {
    let mut guest = Guest::after_messages();
    let anonymous = |controller: &dyn ExplainInput| {
        controller.explain_message(None, MsiMessage { address: DOORBELL, data: 0 })
    };
    let identity = Obstacle::NoIdentity { address: DOORBELL };
    assert_eq!(obstacle(&mut guest, anonymous), Some(identity));
    let device = DeviceId::new(2);
    let unmapped = Obstacle::UnmappedDevice { device, mapped: 1 };
    assert_eq!(obstacle(&mut guest, message(2, 0)), Some(unmapped));
    let unmapped = Obstacle::UnmappedEvent { device: DEVICE, event: EventId::new(9) };
    assert_eq!(obstacle(&mut guest, message(1, 9)), Some(unmapped));
    assert_eq!(obstacle(&mut guest, message(1, 2)), None, "it is idle");
    guest.ram.write(CONFIG, &[0xa0]).unwrap();
    assert_eq!(obstacle(&mut guest, message(1, 0)), Some(Obstacle::Disabled { interrupt: FIRST }));
    guest.set_enable_lpis(0, false);
    assert_eq!(
        obstacle(&mut guest, message(1, 0)),
        Some(Obstacle::LpisDisabled { cpu: Cpu::new(0) })
    );
    guest.write_gits(gits::CTLR, gits::Ctlr::new());
    assert_eq!(obstacle(&mut guest, message(1, 0)), Some(Obstacle::ItsDisabled { its: ITS }));
}

/// The SPI is in Group 0. The model's distributor forwards only Group 1, but KVM's forwards both.
#[test]
fn explain_traces_a_line_to_the_cpu() {
    let mut guest = Guest::after_messages();
    let interrupt = HwIrq::new(SPI);
    let line = |controller: &dyn ExplainInput| controller.explain_line(Line::Spi(SPI));
    assert_eq!(obstacle(&mut guest, line), Some(Obstacle::Disabled { interrupt }));
    guest.enable_spi(SPI);
    assert_eq!(
        obstacle(&mut guest, line),
        Some(Obstacle::WrongGroup { interrupt, group: Group::Zero })
    );
    guest.msr(0, icc::IGRPEN0.encoding(), 1);
    assert_eq!(obstacle(&mut guest, line), None);
    let _ = guest.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(obstacle(&mut guest, line), None);
    let beyond = |controller: &dyn ExplainInput| controller.explain_line(Line::Spi(64));
    let interrupt = HwIrq::new(64);
    assert_eq!(obstacle(&mut guest, beyond), Some(Obstacle::NoSuchInterrupt { interrupt }));
}

#[test]
fn an_explanation_changes_no_state_but_the_saved_tables() {
    let mut guest = Guest::after_messages();
    let ram = guest.ram.clone();
    let memory = || {
        let mut bytes = vec![0; RAM_BYTES];
        ram.read(0, &mut bytes).unwrap();
        bytes
    };
    examine(&mut guest, |kernel, explainer| {
        let mut devices = kernel.clone();
        devices.set(KvmDevice::Its(0), Attribute::Control(control::ITS_SAVE_TABLES), 0).unwrap();
        let pending = Attribute::Control(control::SAVE_PENDING_TABLES);
        devices.set(KvmDevice::Gic, pending, 0).unwrap();
        let (bytes, state) = (memory(), format!("{:?}", kernel.view.lock().unwrap()));
        for _ in 0..2 {
            assert_eq!(message(1, 0)(explainer).obstacle(), None);
        }
        assert!(memory() == bytes, "guest memory has changed");
        assert_eq!(format!("{:?}", kernel.view.lock().unwrap()), state);
    });
}

#[test]
fn an_explanation_reports_a_refused_access_as_unexamined() {
    let mut guest = Guest::after_messages();
    examine(&mut guest, |kernel, explainer| {
        let unexamined = Explanation::new().with_unexamined(Unexamined::KernelController);
        *kernel.accesses_left.lock().unwrap() = 1000;
        explainer.copy().unwrap();
        let accesses = 1000 - *kernel.accesses_left.lock().unwrap();
        assert!(accesses > 100, "{accesses}");
        for accesses in 0..accesses {
            *kernel.accesses_left.lock().unwrap() = accesses;
            assert_eq!(message(1, 0)(explainer), unexamined, "{accesses}");
            *kernel.accesses_left.lock().unwrap() = accesses;
            assert_eq!(explainer.explain_line(Line::Spi(SPI)), unexamined, "{accesses}");
        }
    });
}

#[test]
fn an_explanation_reports_overlapping_tables_as_unexamined() {
    let mut guest = Guest::after_messages();
    guest.run([mapd(3, 4, TRANSLATIONS + 0x100)]);
    examine(&mut guest, |_, explainer| assert!(explainer.copy().is_ok()));
    guest.run([mapd(3, 4, TRANSLATIONS)]);
    examine(&mut guest, |_, explainer| {
        let overlap = NotExamined::Overlap(TRANSLATIONS);
        assert_eq!(explainer.copy().map(drop), Err(overlap));
        assert!(message(1, 0)(explainer).unexamined().eq([Unexamined::KernelController]));
    });
}

/// The pending table of a redistributor is outside of memory.
#[test]
fn incomplete_state_is_reported_as_unexamined() {
    let mut guest = Guest::after_messages();
    guest.set_enable_lpis(1, false);
    let pendbaser = guest.frame(1) + u64::from(gicr::PENDBASER.offset());
    guest.write(pendbaser, AccessWidth::Word, 0x4000_0000);
    guest.set_enable_lpis(1, true);
    examine(&mut guest, |_, explainer| {
        let lost = explainer.copy().map(drop);
        assert!(matches!(lost, Err(NotExamined::Incomplete(_))), "{lost:?}");
    });
}

#[test]
fn explain_finds_an_its_at_any_address() {
    for base in [0x0800_0000, 0x080a_0000, 1 << 40] {
        let config = kvm_config(2, 64)
            .with_distributor(1 << 45)
            .with_redistributors(vec![vgic::RedistributorRegion::new(1 << 46, 2)])
            .with_its(vec![kvm_its_config(base)]);
        assert_eq!(its_disabled(&config), Some(Obstacle::ItsDisabled { its: base }));
    }
}

/// Returns the obstacle of a message to a machine after reset.
fn its_disabled(config: &VgicConfig) -> Option<Obstacle> {
    let ram = Arc::new(crate::board::ram());
    let (gic, mut vcpus) = Vgic::new(config.clone(), ram.clone(), Arc::new(|_| {})).unwrap();
    let state = save_machine(&gic, &mut vcpus);
    let kernel = Kernel::new(KvmView::new(config, state, &*ram).unwrap());
    let cpus = config
        .cpus
        .iter()
        .map(|cpu| SnapshotCpu::new(cpu.affinity, cpu.processor_number, Some(true)));
    let explainer = KvmExplainer::new(kernel, cpus.collect(), 1, ram.clone());
    let message = MsiMessage { address: config.its[0].doorbell(), data: 0 };
    explainer.explain_message(Some(DEVICE), message).obstacle()
}
