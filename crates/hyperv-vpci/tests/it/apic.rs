//! Local APIC vectors on x86, retargeted by hypercall.

use crate::board::{
    BUS, FAR, HostSide, INSTANCE, PROCESSORS, SLOT, TestKernel, channel, open, reason, request,
};
use crate::tamper::Tamper;
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::guest::{ApicVectors, Bus, Hypercall, Vectors};
use hyperv_vpci::host::{FunctionInterrupts, Injection};
use hyperv_vpci::protocol::reply::{InterruptReply, Status};
use hyperv_vpci::protocol::{
    Delivery as Mode, InterruptDescriptor, InterruptForm, Processors, Request, RetargetInput,
    Version,
};
use msi_types::{
    Attachment, BlockRequest, Cpu, Delivery, HwIrq, HwIrqBlock, Isolation, Move, MoveOutcome,
    MsiError, MsiMessage, MsiParent, NoIdentity, NotIsolated, Pending, RequesterId, Shape,
    SignalMsi,
};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// Allocator of (CPU, vector) pairs by slot. Each move uses the next free vector.
#[derive(Default)]
pub(crate) struct Matrix {
    slots: Mutex<Vec<Option<(u32, u8)>>>,
    next: Mutex<u8>,
    moving: Mutex<Option<(u32, u8)>>,
    unmasked: Mutex<Vec<HwIrq>>,
    /// `true` if messages have the format of an interrupt remapping unit.
    remaps: bool,
}

fn message(cpu: u32, vector: u8) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000 | u64::from(cpu) << 12, data: vector.into() }
}

fn local(processor: u16, vector: u8) -> MsiMessage {
    message(processor.into(), vector)
}

impl Matrix {
    fn place(&self, hwirq: HwIrq) -> (u32, u8) {
        self.slots.lock().unwrap()[hwirq.index() - 256].expect("the vector is allocated")
    }

    fn fresh(&self) -> u8 {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        0x40 + *next
    }
}

impl MsiParent for Matrix {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::NoController)
    }
    fn attach(&self, device: RequesterId, _: u32) -> Result<Attachment, MsiError> {
        Ok(Attachment::new(device, 77))
    }
    fn detach(&self, device: Attachment) {
        assert_eq!(device.cookie(), 77);
    }
    fn allocate(&self, of: &Attachment, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        assert_eq!((of.cookie(), request.shape), (77, Shape::Independent));
        let first = self.slots.lock().unwrap().len();
        for _ in 0..request.count.get() {
            let place = (request.cpu.get(), self.fresh());
            self.slots.lock().unwrap().push(Some(place));
        }
        Ok(HwIrqBlock::new(HwIrq::new(256 + u32::try_from(first).unwrap()), request.count))
    }
    fn free(&self, _: &Attachment, block: HwIrqBlock) {
        for index in 0..block.count().get() {
            let index = block.hwirq(index).unwrap().index() - 256;
            self.slots.lock().unwrap()[index].take().expect("a vector is freed only once");
        }
    }
    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let (cpu, vector) = self.place(block.hwirq(index).unwrap());
        let remapped = MsiMessage { address: 0xfee0_0010, data: 0 };
        Ok(if self.remaps { remapped } else { message(cpu, vector) })
    }
    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let first = block.hwirq(index).unwrap();
        let (from, _) = self.place(first);
        let vector = self.fresh();
        *self.moving.lock().unwrap() = Some((to.get(), vector));
        let message = Some(message(to.get(), vector));
        Ok(Move { first, count: NonZeroU16::MIN, message, from: Cpu::new(from), to })
    }
    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        let new = self.moving.lock().unwrap().take().expect("a move is in progress");
        if outcome == MoveOutcome::Written {
            self.slots.lock().unwrap()[moved.first.index() - 256] = Some(new);
        }
        Ok(())
    }
    fn mask(&self, _: HwIrq) {}
    fn unmask(&self, hwirq: HwIrq) {
        self.unmasked.lock().unwrap().push(hwirq);
    }
    fn set_pending(&self, _: HwIrq, _: Pending) {}
    fn describe(&self, _: HwIrq, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

/// Simulation of the hypervisor, and the messages that local APICs receive.
#[derive(Default)]
struct Machine {
    kernel: Mutex<Option<Arc<TestKernel>>>,
    calls: Mutex<u32>,
    status: AtomicU16,
    taken: Mutex<Vec<MsiMessage>>,
}

impl Hypercall for Machine {
    fn retarget(&self, input: &RetargetInput) -> u16 {
        *self.calls.lock().unwrap() += 1;
        let kernel = self.kernel.lock().unwrap();
        let kernel: &TestKernel = kernel.as_ref().expect("the bus is open");
        match self.status.load(Ordering::SeqCst) {
            0 => kernel.side.lock().unwrap().host.retarget(input.bytes()),
            refused => refused,
        }
    }
}

impl SignalMsi<NoIdentity> for Machine {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        self.taken.lock().unwrap().push(message);
        Delivery::Pending
    }
}

struct Pc {
    machine: Arc<Machine>,
    matrix: Arc<Matrix>,
    kernel: Arc<TestKernel>,
    device: Arc<FunctionInterrupts>,
    bus: Bus,
}

impl Pc {
    fn new(version: Version) -> Self {
        let machine = Arc::new(Machine::default());
        let matrix = Arc::new(Matrix::default());
        let vectors = Vectors::Apic(ApicVectors::new(matrix.clone(), machine.clone(), INSTANCE));
        let injection = Injection::Apic { signal: machine.clone(), message: local };
        let (kernel, devices, bus) = open(version, injection, vectors, &Tamper::default());
        *machine.kernel.lock().unwrap() = Some(kernel.clone());
        let bus = bus.expect("the bus opens");
        Self { machine, matrix, kernel, device: devices[0].clone(), bus }
    }

    /// Creates a PC whose device has a vector for CPU 0. Returns the vector's message.
    fn with_vector(version: Version) -> (Self, Attachment, HwIrqBlock, MsiMessage) {
        let pc = Self::new(version);
        let device = pc.attach();
        let block = pc.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
        let message = pc.bus.compose(&block, 0).unwrap();
        (pc, device, block, message)
    }

    fn attach(&self) -> Attachment {
        self.bus.attach(SLOT.requester(BUS), 64).unwrap()
    }

    /// Returns the message that a local APIC receives when the device sends `message`.
    fn arrives(&self, message: MsiMessage) -> MsiMessage {
        assert_eq!(self.device.signal_msi(NoIdentity, message), Delivery::Pending);
        self.machine.taken.lock().unwrap().pop().expect("a message arrived")
    }

    fn calls(&self) -> u32 {
        std::mem::take(&mut self.machine.calls.lock().unwrap())
    }
}

#[test]
fn a_move_retargets_by_hypercall_and_keeps_the_message() {
    let (pc, _device, block, opaque) = Pc::with_vector(Version::V1_4);
    pc.calls();
    let moved = pc.bus.begin_move(&block, 0, Cpu::new(3)).unwrap();
    assert_eq!((moved.message, pc.calls()), (None, 1));
    pc.bus.end_move(moved, MoveOutcome::Written).unwrap();
    let (cpu, vector) = pc.matrix.place(block.first());
    assert_eq!((cpu, pc.arrives(opaque)), (3, message(3, vector)));
    assert_eq!(pc.bus.compose(&block, 0), Ok(opaque));
}

/// The host names messages by small numbers, so a successor's message equals its predecessor's.
#[test]
fn a_stale_driver_does_not_retarget_its_successor() {
    let mut pc = Pc::new(Version::V1_4);
    let stale = pc.attach();
    let old = pc.bus.allocate(&stale, &request(1, Shape::Independent)).unwrap();
    let before = pc.bus.compose(&old, 0).unwrap();
    pc.device = pc.kernel.side.lock().unwrap().replace(SLOT, 10);
    pc.kernel.side.lock().unwrap().serve().unwrap();
    assert!(pc.bus.poll().is_ok());
    let device = pc.attach();
    let block = pc.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    let opaque = pc.bus.compose(&block, 0).unwrap();
    assert_eq!(opaque, before);
    let arrived = pc.arrives(opaque);
    pc.calls();
    pc.bus.unmask(old.first());
    let moved = pc.bus.begin_move(&old, 0, Cpu::new(3)).unwrap();
    pc.bus.end_move(moved, MoveOutcome::Written).unwrap();
    assert_eq!((pc.calls(), pc.arrives(opaque)), (0, arrived));
}

#[test]
fn a_move_that_is_rolled_back_is_undone_by_hypercall() {
    let (pc, _device, block, opaque) = Pc::with_vector(Version::V1_4);
    let before = pc.arrives(opaque);
    let moved = pc.bus.begin_move(&block, 0, Cpu::new(3)).unwrap();
    assert_ne!(pc.arrives(opaque), before);
    pc.bus.end_move(moved, MoveOutcome::RolledBack).unwrap();
    assert_eq!(pc.arrives(opaque), before);
}

#[test]
fn a_refused_hypercall_undoes_the_move() {
    let (pc, _device, block, opaque) = Pc::with_vector(Version::V1_4);
    let before = pc.arrives(opaque);
    pc.machine.status.store(5, Ordering::SeqCst);
    let refused = pc.bus.begin_move(&block, 0, Cpu::new(3)).unwrap_err();
    assert_eq!(reason(refused), "the hypervisor refused");
    assert!(pc.matrix.moving.lock().unwrap().is_none());
    assert_eq!(pc.arrives(opaque), before);
}

#[test]
fn an_unmask_retargets_by_hypercall() {
    let pc = Pc::new(Version::V1_4);
    let device = pc.attach();
    let block = pc.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    pc.bus.unmask(block.first());
    // The vector has no message yet, so the guest makes no hypercall.
    assert_eq!(pc.calls(), 0);
    pc.bus.compose(&block, 0).unwrap();
    pc.kernel.may_wait.store(false, Ordering::SeqCst);
    pc.bus.unmask(block.first());
    assert_eq!(pc.calls(), 1);
    assert_eq!(*pc.matrix.unmasked.lock().unwrap(), [block.first(); 2]);
}

#[test]
fn cpus_above_63_can_be_targeted() {
    let far = Cpu::new(FAR.into());
    for version in Version::OFFERED {
        let (pc, device, block, opaque) = Pc::with_vector(version);
        let moved = pc.bus.begin_move(&block, 0, far).unwrap();
        pc.bus.end_move(moved, MoveOutcome::Written).unwrap();
        pc.bus.unmask(block.first());
        assert_eq!(pc.calls(), 2);
        assert_eq!(pc.arrives(opaque), message(far.get(), 0x42));
        // A group can be allocated at that CPU directly.
        let wanted = request(2, Shape::AlignedGroup).with_cpu(far);
        let group = pc.bus.allocate(&device, &wanted).unwrap();
        let opaque = pc.bus.compose(&group, 0).unwrap();
        assert_eq!(pc.arrives(opaque), message(far.get(), 0x43));
        assert_eq!(pc.bus.faults().refused_unmasks, 0);
    }
}

#[test]
fn a_refused_unmask_is_reported() {
    let (pc, _device, block, _) = Pc::with_vector(Version::V1_4);
    let shown = || {
        let mut text = String::new();
        pc.bus.describe(block.first(), &mut text).unwrap();
        text.contains("the hypervisor refused the last unmask")
    };
    pc.bus.unmask(block.first());
    assert_eq!((pc.bus.faults().refused_unmasks, shown()), (0, false));
    pc.machine.status.store(5, Ordering::SeqCst);
    pc.bus.unmask(block.first());
    assert_eq!((pc.bus.faults().refused_unmasks, shown()), (1, true));
    // The vector works at its last target, and the next unmask succeeds.
    assert_eq!(*pc.matrix.unmasked.lock().unwrap(), [block.first(); 2]);
    pc.machine.status.store(0, Ordering::SeqCst);
    pc.bus.unmask(block.first());
    assert_eq!((pc.bus.faults().refused_unmasks, shown()), (1, false));
}

/// OpenVMM's client requests lowest-priority delivery for an interrupt that any of several
/// processors may handle.
#[test]
fn host_grants_any_of_several_cpus_but_refuses_all() {
    let pc = Pc::new(Version::V1_4);
    let mut vector = 0x60;
    let mut create = |delivery, processors: &[u16]| {
        vector += 1;
        let processors = Processors::new(processors).unwrap();
        let interrupt = InterruptDescriptor { vector, delivery, count: 1, processors };
        let request = Request::CreateInterrupt { slot: SLOT, form: InterruptForm::V3, interrupt };
        let mut message = [0; 128];
        let length = request.emit(&mut message).unwrap();
        let mut side = pc.kernel.side.lock().unwrap();
        let HostSide { host, .. } = &mut *side;
        let (mut near, mut far) = channel();
        near.send(PacketKind::Request(7), &message[..length]).unwrap();
        host.serve(&mut far).unwrap();
        let received = near.receive(&mut message).unwrap().unwrap();
        InterruptReply::parse(&message[..received.length]).unwrap().map(|of| of.0.message)
    };
    let any = create(Mode::LowestPriority, &[3, 1]).unwrap();
    assert_eq!(pc.arrives(any), message(3, 0x61));
    let alone = create(Mode::Fixed, &[2]).unwrap();
    assert_eq!(pc.arrives(alone), message(2, 0x62));
    assert_eq!(create(Mode::Fixed, &[1, 3]), Err(Status::NOT_SUPPORTED));
}

#[test]
fn vectors_of_a_group_are_placed_one_by_one() {
    let pc = Pc::new(Version::V1_4);
    let device = pc.attach();
    let block = pc.bus.allocate(&device, &request(4, Shape::AlignedGroup)).unwrap();
    let opaque = pc.bus.compose(&block, 0).unwrap();
    assert!(opaque.data.is_multiple_of(4));
    let moved = pc.bus.begin_move(&block, 2, Cpu::new(1)).unwrap();
    pc.bus.end_move(moved, MoveOutcome::Written).unwrap();
    for index in 0..4u16 {
        let (cpu, vector) = pc.matrix.place(block.hwirq(index).unwrap());
        assert_eq!(cpu, u32::from(index == 2));
        let sent = MsiMessage { data: opaque.data | u32::from(index), ..opaque };
        assert_eq!(pc.arrives(sent), message(cpu, vector));
    }
    pc.bus.free(&device, block);
    pc.bus.detach(device);
    assert!(pc.matrix.slots.lock().unwrap().iter().all(Option::is_none));
    assert_eq!(pc.device.signal_msi(NoIdentity, opaque), Delivery::Blocked);
}

#[test]
fn the_host_refuses_invalid_retarget_hypercalls() {
    let (pc, _device, _block, opaque) = Pc::with_vector(Version::V1_4);
    let before = pc.arrives(opaque);
    use hyperv_vpci::protocol::{DeviceKey, Retarget, Slot};
    let good = Retarget {
        device: DeviceKey::new(INSTANCE, SLOT),
        message: opaque,
        vector: 0x60,
        processor: 1,
    };
    let other_bus = DeviceKey::new([0; 16], SLOT);
    let other_function = DeviceKey::new(INSTANCE, Slot::new(0, 3));
    let stray = [
        Retarget { device: other_bus, ..good },
        Retarget { device: other_function, ..good },
        Retarget { message: MsiMessage { data: opaque.data + 1, ..opaque }, ..good },
        Retarget { message: MsiMessage { address: 0, ..opaque }, ..good },
        Retarget { vector: 0xff, ..good },
        Retarget { vector: 0x160, ..good },
        Retarget { processor: PROCESSORS, ..good },
    ];
    let call = |retarget: Retarget| {
        let input = RetargetInput::new(&retarget).unwrap();
        let mut side = pc.kernel.side.lock().unwrap();
        let HostSide { host, .. } = &mut *side;
        host.retarget(input.bytes())
    };
    for retarget in stray {
        assert_eq!(call(retarget), 5, "{retarget:?}");
        assert_eq!(pc.arrives(opaque), before);
    }
    assert_eq!(call(good), 0);
    assert_eq!(pc.arrives(opaque), message(1, 0x60));
    assert_eq!(pc.kernel.side.lock().unwrap().host.retarget(&[0; 8]), 5);
}

#[test]
fn a_parent_whose_message_names_no_apic_vector_is_refused() {
    let pc = Pc::new(Version::V1_4);
    let parent = Arc::new(Matrix { remaps: true, ..Matrix::default() });
    let vectors = Vectors::Apic(ApicVectors::new(parent.clone(), pc.machine.clone(), INSTANCE));
    let injection = Injection::Apic { signal: pc.machine.clone(), message: local };
    let (_, _, bus) = open(Version::V1_4, injection, vectors, &Tamper::default());
    let bus = bus.unwrap();
    let device = bus.attach(SLOT.requester(BUS), 4).unwrap();
    let refused = bus.allocate(&device, &request(2, Shape::Independent)).unwrap_err();
    assert_eq!(reason(refused), "the root's message does not name a local APIC vector");
    assert!(parent.slots.lock().unwrap().iter().all(Option::is_none));
}
