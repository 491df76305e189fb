//! Obstacles that the core and its PCI stores report. Each test plants a fault and checks the
//! obstacle.

use crate::function::{AT, Function, PENDING_AT, TABLE_AT, attach};
use crate::mock::{
    Addressing, CPUS, Hotplug as _, Machine, StoreKind, in_hard_irq, on_cpu, requested,
    take_spurious,
};
use irq_domain::pci::AccessContext;
use irq_domain::{IrqHandle, IrqReturn, MsiDevice, WiredRequest};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::pci::{msi, msix};
use msi_types::{Cpu, HwIrq, MessageStore, MsiMessage, Shape, Trigger};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const COMMAND: u16 = 4;
const MEMORY: u8 = 2;
const MASTER: u8 = 4;
/// Offset of the power management capability.
const POWER: u16 = 0x80;
const ON: msix::Control = msix::Control::new().with_enable(true);
const LINE_INPUT: HwIrq = HwIrq::new(33);
const LINE: WiredRequest<'static> = WiredRequest::new(LINE_INPUT, Trigger::Level, "line");

/// A function with one vector, whose handler runs.
struct Setup {
    function: Arc<Function>,
    machine: Machine,
    device: MsiDevice,
    handle: IrqHandle,
}

impl Setup {
    fn new(function: Arc<Function>, store: Arc<dyn MessageStore>, shape: Shape) -> Self {
        let (machine, device) = attach(Addressing::Stays, store);
        device.allocate(shape, 2..=2).unwrap();
        let handle = device.request(1, "queue", |_| {}).unwrap();
        Self { function, machine, device, handle }
    }

    fn msix() -> Self {
        let function = Function::with_msix(4);
        function.set_list(&[(AT, msix::CAPABILITY_ID, 0x80), (POWER, 1, 0)]);
        function.set(0, &0xd00bu16.to_le_bytes());
        function.set(COMMAND, &[MEMORY | MASTER]);
        let store = Arc::new(function.msix_store().unwrap());
        Self::new(function, store, Shape::Independent)
    }

    fn msi() -> Self {
        let control = msi::Control::new().with_multiple_message_capable(2);
        let control = control.with_per_vector_masking(true);
        let function = Function::with_msi(control, AccessContext::Any);
        function.set(0, &0xd00bu16.to_le_bytes());
        function.set(COMMAND, &[MASTER]);
        let store = Arc::new(function.msi_store().unwrap());
        Self::new(function, store, Shape::AlignedGroup)
    }

    fn explain(&self) -> Explanation {
        self.machine.interrupts.explain(self.handle.irq()).unwrap()
    }

    /// Writes the registers again, so that the device can be torn down. Fails if the function is
    /// absent.
    fn restore(&self) {
        let _ = self.device.restore();
    }

    fn mask(&self) {
        self.function.set_memory(in_entry(msix::ENTRY_CONTROL), 1);
    }

    fn set_msix(&self, control: msix::Control) {
        let control = control.with_table_size_minus_one(3);
        self.function.set(AT + msix::CONTROL, &u16::from(control).to_le_bytes());
    }
}

fn in_entry(register: u64) -> u64 {
    TABLE_AT + msix::ENTRY_SIZE + register
}

/// The vendor of a virtual function reads as all ones, and its memory is enabled elsewhere.
#[test]
fn a_working_virtual_function_has_no_obstacle() {
    let setup = Setup::msix();
    setup.function.set(0, &[0xff; 4]);
    setup.function.set(COMMAND, &[MASTER]);
    assert_eq!(setup.explain().obstacle(), None);
}

#[test]
fn explain_reports_each_fault_in_a_working_vector() {
    let faults: [(fn(&Setup), _); 8] = [
        (|setup| setup.function.gone.store(true, Ordering::Relaxed), Obstacle::Absent),
        (|setup| setup.function.set(POWER + 4, &[3]), Obstacle::PoweredDown { state: 3 }),
        (|setup| setup.set_msix(msix::Control::new()), Obstacle::MessagesDisabled),
        (|setup| setup.set_msix(ON.with_function_mask(true)), Obstacle::FunctionMasked),
        (Setup::mask, Obstacle::VectorMasked { vector: 1, pending: false }),
        (
            |setup| {
                setup.mask();
                setup.function.set_memory(PENDING_AT, 1 << 1);
            },
            Obstacle::VectorMasked { vector: 1, pending: true },
        ),
        (|setup| setup.function.set(COMMAND, &[MASTER]), Obstacle::MemoryDisabled),
        (|setup| setup.function.set(COMMAND, &[MEMORY]), Obstacle::BusMasterDisabled),
    ];
    for (fault, expected) in faults {
        let setup = Setup::msix();
        assert_eq!(setup.explain().obstacle(), None);
        fault(&setup);
        assert_eq!(setup.explain().obstacle(), Some(expected));
        setup.restore();
    }
}

#[test]
fn explain_lists_a_fact_per_stage_of_a_working_vector() {
    let setup = Setup::msix();
    setup.machine.dispatch(1, setup.handle.hwirq());
    let message = setup.function.entry_message(1);
    let facts = [
        Fact::Message(message),
        Fact::BusMaster,
        Fact::Enabled(0xa0),
        Fact::Irq(setup.handle.irq().get()),
        Fact::Runs(1),
    ];
    assert!(setup.explain().facts().eq(facts));
    assert_eq!(setup.explain().obstacle(), None);
}

#[test]
fn explain_lists_another_pending_vector() {
    let setup = Setup::msix();
    // Vector 0 has no handler, so the core has masked it. Vector 1 is open.
    for (pending, expected) in [(0, None), (1, Some(0)), (1 << 1, None), (1 << 3 | 1, Some(0))] {
        setup.function.set_memory(PENDING_AT, pending);
        let other = setup.explain().facts().find_map(|fact| match fact {
            Fact::OtherVectorPending(vector) => Some(vector),
            _ => None,
        });
        assert_eq!(other, expected, "{pending:#x}");
    }
    setup.set_msix(msix::Control::new());
    let shown = setup.explain().facts().any(|fact| fact == Fact::OtherVectorPending(0));
    assert!(!shown, "while messages are disabled, the pending bits are not read");
    setup.restore();
}

#[test]
fn explain_reports_msi_and_msix_both_enabled() {
    const OTHER: u16 = 0x90;
    let setup = Setup::msix();
    let list = [(AT, msix::CAPABILITY_ID, 0x80), (POWER, 1, 0x90), (OTHER, msi::CAPABILITY_ID, 0)];
    setup.function.set_list(&list);
    let enabled = u16::from(msi::Control::new().with_enable(true));
    for (control, msix, expected) in [
        (0, ON, None),
        (enabled, ON, Some(Obstacle::BothEnabled)),
        (enabled, msix::Control::new(), Some(Obstacle::MessagesDisabled)),
    ] {
        setup.function.set(OTHER + msi::CONTROL, &control.to_le_bytes());
        setup.set_msix(msix);
        assert_eq!(setup.explain().obstacle(), expected);
    }
    setup.restore();
}

#[test]
fn explain_reports_an_overwritten_message() {
    let setup = Setup::msix();
    let expected = setup.function.entry_message(1);
    for (register, value, stored) in [
        (msix::ENTRY_ADDRESS_LOW, 0x808_0040, MsiMessage { address: 0x808_0040, ..expected }),
        (msix::ENTRY_DATA, 77, MsiMessage { data: 77, ..expected }),
    ] {
        let right = setup.function.entry(1, register);
        setup.function.set_memory(in_entry(register), value);
        let differs = Obstacle::MessageDiffers { stored, expected };
        assert_eq!(setup.explain().obstacle(), Some(differs));
        setup.function.set_memory(in_entry(register), right);
    }
    assert_eq!(setup.explain().obstacle(), None);
}

#[test]
fn explain_reports_a_slot_beyond_the_store() {
    let control = msi::Control::new().with_multiple_message_capable(2);
    let stores: [Arc<dyn MessageStore>; 2] = [
        Arc::new(Function::with_msix(4).msix_store().unwrap()),
        Arc::new(Function::with_msi(control, AccessContext::Any).msi_store().unwrap()),
    ];
    for store in stores {
        let read = store.read_back(4).unwrap();
        let missing = Obstacle::NoVector { vector: 4, vectors: 4 };
        assert_eq!((read.message, read.explanation.obstacle()), (None, Some(missing)));
    }
}

#[test]
fn explain_reports_msi_register_faults() {
    let control = |setup: &Setup, change: fn(msi::Control) -> msi::Control| {
        let changed = u16::from(change(setup.function.msi_control()));
        setup.function.set(AT + msi::CONTROL, &changed.to_le_bytes());
    };
    let setup = Setup::msi();
    let expected = setup.device.sent_message(1).unwrap();
    assert!(setup.explain().facts().any(|fact| fact == Fact::Message(expected)));
    assert_eq!(setup.explain().obstacle(), None);
    control(&setup, |control| control.with_multiple_message_enable(0));
    let stored = MsiMessage { data: expected.data & !1, ..expected };
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::MessageDiffers { stored, expected }));
    control(&setup, |control| control.with_multiple_message_enable(1).with_enable(false));
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::MessagesDisabled));
    control(&setup, |control| control.with_enable(true));
    setup.function.set(COMMAND, &[0]);
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::BusMasterDisabled));
    setup.function.set(COMMAND, &[MASTER]);
    let layout = msi::Layout::new(setup.function.msi_control());
    setup.function.set(AT + layout.mask().unwrap(), &[1 << 1]);
    setup.function.set(AT + layout.pending().unwrap(), &[1 << 1]);
    let masked = Obstacle::VectorMasked { vector: 1, pending: true };
    assert_eq!(setup.explain().obstacle(), Some(masked));
}

#[test]
fn explain_reports_why_the_core_masked_a_vector() {
    let setup = Setup::msix();
    setup.handle.disable();
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::DisabledByDriver));
    let other = setup.device.vector(0).unwrap().irq;
    let explain = |irq| setup.machine.interrupts.explain(irq).unwrap().obstacle();
    assert_eq!(explain(other), Some(Obstacle::NotRequested));
    setup.set_msix(msix::Control::new());
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::MessagesDisabled), "the first obstacle");
    setup.restore();
}

#[test]
fn explain_distinguishes_disable_from_a_controller_mask() {
    let (machine, _, _device, handle) = requested(Addressing::Stays, StoreKind::SLOW);
    let explain = || machine.interrupts.explain(handle.irq()).unwrap().obstacle();
    assert_eq!(explain(), None);
    handle.disable();
    assert_eq!(explain(), Some(Obstacle::DisabledByDriver));
    handle.enable();
    msi_types::MsiParent::mask(&*machine.controller, handle.hwirq());
    assert_eq!(explain(), Some(Obstacle::Disabled { interrupt: handle.hwirq() }), "by others");
}

#[test]
fn explain_reports_a_line_disabled_as_spurious() {
    let machine = Machine::new(Addressing::Stays);
    let line = machine.interrupts.request_wired(LINE, |_| IrqReturn::None).unwrap();
    let explain = || machine.interrupts.explain(line.irq()).unwrap();
    assert_eq!(explain().obstacle(), None);
    assert!(explain().facts().any(|fact| fact == Fact::Input(LINE_INPUT)));
    for _ in 0..99_901 {
        machine.dispatch(0, LINE_INPUT);
    }
    assert_eq!(take_spurious(), Some(line.irq()));
    assert_eq!(explain().obstacle(), Some(Obstacle::DisabledAsSpurious));
}

#[test]
fn explain_reports_a_managed_vector_shut_down() {
    let machine = Machine::new(Addressing::Stays);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate_managed(0, &[Cpu::new(1)]).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    machine.interrupts.offline(Cpu::new(1)).unwrap();
    let explanation = machine.interrupts.explain(handle.irq()).unwrap();
    assert_eq!(explanation.obstacle(), Some(Obstacle::ShutDown));
}

#[test]
fn explain_reports_a_vector_stranded_on_an_offline_cpu() {
    let setup = Setup::msix();
    let cpu = setup.handle.effective_affinity();
    for other in (0..CPUS).filter(|other| Cpu::new(*other) != cpu) {
        setup.machine.controller.set_unreachable(other);
    }
    setup.machine.interrupts.offline(cpu).unwrap();
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::Offline { cpu }));
}

#[test]
fn explain_reports_a_vector_without_a_descriptor() {
    let setup = Setup::msix();
    let interrupts = &setup.machine.interrupts;
    assert_eq!(interrupts.explain_vector(setup.handle.hwirq()), setup.explain());
    let interrupt = HwIrq::new(9000);
    let missing = Some(Obstacle::NoDescriptor { interrupt });
    assert_eq!(interrupts.explain_vector(interrupt).obstacle(), missing);
    assert!(interrupts.explain(irq_domain::Irq::new(99)).is_none());
}

#[test]
fn explain_reports_a_private_interrupt_as_the_calling_cpu_sees_it() {
    let machine = Machine::new(Addressing::Stays);
    let (hwirq, trigger) = (HwIrq::new(27), Trigger::Level);
    let timer = machine.interrupts.request_per_cpu(hwirq, trigger, "timer", |_| {}).unwrap();
    let on_cpu = |cpu| on_cpu(cpu, || machine.interrupts.explain(timer.irq()).unwrap().obstacle());
    assert_eq!(on_cpu(1), Some(Obstacle::DisabledByDriver));
    in_hard_irq(1, || timer.enable_here());
    assert_eq!(on_cpu(1), None);
    assert_eq!(on_cpu(2), Some(Obstacle::DisabledByDriver));
}
