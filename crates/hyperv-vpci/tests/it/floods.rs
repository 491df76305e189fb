//! Hosts that never stop sending, and kernels whose waits return early or late. The kernel's clock
//! counts the guest's work: a list of functions costs a step for each description and each slot.

use crate::board::{
    BUS, Ring, SLOT, channel, config, function, host_config, impl_task_context, refusal, request,
    spis,
};
use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};
use hyperv_vpci::guest::{Bus, Kernel, Wait};
use hyperv_vpci::host::{Host, Injection};
use hyperv_vpci::protocol::{
    DeviceDescription, MAX_MESSAGE, Notice, Relations, RelationsForm, SLOTS, Slot, Version,
};
use msi_types::{Cpu, HwIrqBlock, MsiParent, Shape};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Time limit of a wait, and the time by which a late wait exceeds it.
const LIMIT: u64 = 200_000;
/// Maximum work between two looks at the clock: 64 lists of all slots.
const WORK: u64 = 64 * 2 * SLOTS as u64;

/// Kernel with a single task, whose waits let the host run.
struct ClockKernel {
    host: Mutex<(Host, Ring)>,
    is_silent: AtomicBool,
    is_late: AtomicBool,
    now: AtomicU64,
    end: AtomicU64,
    /// Time of the last look at the clock, and the longest time between two.
    looked: AtomicU64,
    longest: AtomicU64,
}

impl ClockKernel {
    /// Returns the time.
    fn look(&self) -> u64 {
        let now = self.now.load(SeqCst);
        let elapsed = now - self.looked.swap(now, SeqCst);
        self.longest.fetch_max(elapsed, SeqCst);
        now
    }
}

impl_task_context!(ClockKernel);

impl Kernel for ClockKernel {
    fn wake_ups(&self) -> u32 {
        0
    }
    fn wake(&self) {}
    /// Returns at once without a wake-up, or long after the time limit.
    fn wait(&self, _: u32, turn: u32) -> Wait {
        let now = self.look();
        if turn == 0 {
            self.end.store(now + LIMIT, SeqCst);
        }
        if !self.is_silent.load(SeqCst) {
            let (host, channel) = &mut *self.host.lock().unwrap();
            host.serve(channel).unwrap();
        }
        let slept = if self.is_late.load(SeqCst) { 2 * LIMIT } else { 1 };
        self.now.fetch_add(slept, SeqCst);
        self.looked.store(now + slept, SeqCst);
        if now + slept < self.end.load(SeqCst) { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

/// Packets that a lying host sends in turn, for ever, with the work of each.
type Flood = Arc<Mutex<Vec<(Vec<u8>, u64)>>>;

/// Guest's end of a channel that a host may flood.
struct Flooded(Ring, Flood, Arc<ClockKernel>);

impl Channel for Flooded {
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError> {
        self.0.send(kind, payload)
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        if let Some(received) = self.0.receive(buffer)? {
            return Ok(Some(received));
        }
        let mut flood = self.1.lock().unwrap();
        let Some((packet, work)) = flood.first().cloned() else { return Ok(None) };
        flood.rotate_left(1);
        self.2.now.fetch_add(work, SeqCst);
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(Some(Received { kind: PacketKind::Notice, length: packet.len() }))
    }
    fn idle(&mut self) -> Result<Idle, ChannelError> {
        let idle = self.0.idle()?;
        Ok(if self.1.lock().unwrap().is_empty() { idle } else { Idle::Busy })
    }
}

struct Rig {
    kernel: Arc<ClockKernel>,
    flood: Flood,
    bus: Bus,
}

impl Rig {
    fn new() -> Self {
        let (gic, vectors) = spis();
        let (near, far) = channel();
        let mut host = Host::new(host_config(Version::V1_4), Injection::Spi(gic)).unwrap();
        let _device = host.offer(function(SLOT)).unwrap();
        let [is_silent, is_late] = Default::default();
        let [now, end, looked, longest] = Default::default();
        let host = Mutex::new((host, far));
        let kernel = ClockKernel { host, is_silent, is_late, now, end, looked, longest };
        let (kernel, flood) = (Arc::new(kernel), Flood::default());
        let channel = Flooded(near, flood.clone(), kernel.clone());
        let bus = Bus::open(config(), Box::new(channel), vectors, kernel.clone()).unwrap();
        Self { kernel, flood, bus }
    }

    /// Allocates a vector.
    fn vector(&self) -> HwIrqBlock {
        let device = self.bus.attach(SLOT.requester(BUS), 4).unwrap();
        self.bus.allocate(&device, &request(1, Shape::Independent)).unwrap()
    }

    /// Starts a flood, and forgets the earlier looks at the clock.
    fn flood(&self, packets: Vec<(Vec<u8>, u64)>) {
        *self.flood.lock().unwrap() = packets;
        self.kernel.look();
        self.kernel.longest.store(0, SeqCst);
    }

    /// Returns the longest time between two looks at the clock.
    fn longest(&self) -> u64 {
        self.kernel.look();
        self.kernel.longest.load(SeqCst)
    }
}

/// Returns a list of `count` functions, and its work. All functions but that in [`SLOT`] have this
/// serial number.
fn list(count: usize, serial: u32) -> (Vec<u8>, u64) {
    let slots = (0..=u8::MAX).map(|number| Slot::new(number & 0x1f, number >> 5));
    let describe = |slot| match slot {
        SLOT => function(SLOT).description,
        slot => DeviceDescription { slot, serial, ..Default::default() },
    };
    let (mut room, mut out) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
    let list = slots.take(count).map(describe);
    let relations = Relations::new(RelationsForm::V2, list, &mut room).unwrap();
    let length = Notice::Relations(relations).emit(&mut out).unwrap();
    (out[..length].to_vec(), (count + SLOTS) as u64)
}

#[test]
fn a_flood_does_not_delay_a_deadline() {
    for count in [1, 2, 16, 128, SLOTS] {
        let rig = Rig::new();
        let block = rig.vector();
        rig.kernel.is_silent.store(true, SeqCst);
        rig.flood(vec![list(count, 1), list(count, 2)]);
        let before = rig.kernel.look();
        assert_eq!(refusal(&rig.bus, &block), "the host did not answer in time");
        let elapsed = rig.kernel.look() - before;
        let longest = rig.longest();
        assert!(longest <= 2 * WORK, "{count} functions: {longest} steps without a clock");
        assert!(elapsed <= LIMIT + 4 * WORK, "{count} functions: {elapsed} steps");
    }
}

#[test]
fn poll_does_bounded_work_in_a_flood() {
    for count in [0, 1, 2, 16, 128, SLOTS] {
        let rig = Rig::new();
        rig.flood(vec![list(count, 1), list(count, 2)]);
        for _ in 0..4 {
            assert_eq!(rig.bus.poll(), Ok(Idle::Busy));
            let longest = rig.longest();
            assert!(longest <= 4 * WORK, "{count} functions: {longest} steps without a clock");
        }
    }
}

#[test]
fn waits_that_return_early_are_repeated_until_the_deadline() {
    let rig = Rig::new();
    let block = rig.vector();
    rig.kernel.is_silent.store(true, SeqCst);
    let before = rig.kernel.look();
    assert_eq!(refusal(&rig.bus, &block), "the host did not answer in time");
    assert_eq!(rig.kernel.look() - before, LIMIT);
}

#[test]
fn an_answer_during_an_overlong_wait_is_accepted() {
    let rig = Rig::new();
    let block = rig.vector();
    rig.kernel.is_late.store(true, SeqCst);
    let before = rig.kernel.look();
    assert!(rig.bus.compose(&block, 0).is_ok());
    assert_eq!(rig.kernel.look() - before, 2 * LIMIT);
}
