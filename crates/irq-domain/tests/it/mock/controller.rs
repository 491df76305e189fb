//! Two kinds of controller: one whose messages stay the same when an interrupt moves, and one whose
//! messages encode the target CPU.

use super::{Hook, Locked, assert_task, count_down, judge, lock};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Capabilities, ControllerFault, Cpu, DoorbellPage, Fit, Granule,
    HwIrq, HwIrqBlock, Initially, Isolation, LevelMessages, Move, MoveOutcome, MsiError,
    MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Shape, Tier,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Relation between a controller's messages and CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Addressing {
    /// The message is the same for all CPUs (ITS).
    Stays,
    /// The address names the CPU. Low words differ, high words do not (Direct LPI).
    NamesCpu,
    /// The address names the CPU. Doorbells are 4 GiB apart.
    NamesCpuFarApart,
}

/// A vector at the controller.
#[derive(Debug)]
struct Line {
    cpu: Cpu,
    masked: bool,
    group: (HwIrq, NonZeroU16),
    moving: bool,
}

#[derive(Debug, Default)]
struct Inside {
    /// The vectors of each attachment, by requester and cookie.
    devices: BTreeMap<(RequesterId, u32), BTreeSet<HwIrq>>,
    lines: BTreeMap<HwIrq, Line>,
    pending: BTreeSet<(Cpu, HwIrq)>,
    outcomes: Vec<MoveOutcome>,
    unreachable: BTreeSet<Cpu>,
}

/// A controller whose vectors start at 8192.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) kind: Addressing,
    pub(crate) capacity: u32,
    /// Counter that each fallible task operation decrements. The operation that finds 0 fails;
    /// `usize::MAX` disables failures.
    pub(crate) fail_in: AtomicUsize,
    /// Offset that is added to message data, to simulate a controller that does not align groups.
    pub(crate) skew: AtomicU32,
    /// Numbers of `mask` and `unmask` calls.
    pub(crate) mask_calls: AtomicUsize,
    pub(crate) unmask_calls: AtomicUsize,
    /// Numbers of `release` calls (for whole devices) and `free` calls (for single blocks).
    pub(crate) releases: AtomicUsize,
    pub(crate) frees: AtomicUsize,
    /// Attached requesters, in order of attachment.
    pub(crate) requesters: Mutex<Vec<RequesterId>>,
    /// CPU sets of the managed allocations.
    pub(crate) managed: Mutex<Vec<Vec<Cpu>>>,
    pub(crate) page: Mutex<DoorbellPage>,
    /// Capabilities and requirements that the controller reports.
    pub(crate) tier: Mutex<Tier>,
    pub(crate) isolation: Mutex<Isolation>,
    /// Fit of the last allocation.
    pub(crate) fit: Mutex<Option<Fit>>,
    /// Hook that is called once, at the start of an allocation, to simulate another CPU.
    pub(crate) meanwhile: Mutex<Option<Hook>>,
    /// The line that signals all vectors, if the controller is chained.
    pub(crate) line: Mutex<Option<HwIrq>>,
    inside: Mutex<Inside>,
}

pub(crate) const FIRST: u32 = 8192;
pub(crate) const FAULT: MsiError = MsiError::Controller(ControllerFault {
    kind: "mock",
    base: 0,
    operation: "injected",
    device: None,
    event: None,
    reason: "fault",
});

impl Controller {
    pub(crate) fn new(kind: Addressing) -> Arc<Self> {
        Self::with_capacity(kind, 4096)
    }

    pub(crate) fn with_capacity(kind: Addressing, capacity: u32) -> Arc<Self> {
        let fail_in = AtomicUsize::new(usize::MAX);
        Arc::new(Self {
            kind,
            capacity,
            fail_in,
            skew: AtomicU32::new(0),
            mask_calls: AtomicUsize::new(0),
            unmask_calls: AtomicUsize::new(0),
            releases: AtomicUsize::new(0),
            frees: AtomicUsize::new(0),
            requesters: Mutex::default(),
            managed: Mutex::default(),
            page: Mutex::new(DoorbellPage::Alone),
            tier: Mutex::new(Tier::new("mock").with_provides(Capabilities::ALL)),
            isolation: Mutex::new(Isolation::NotIsolated(NotIsolated::SharedDoorbell("mock"))),
            fit: Mutex::new(None),
            meanwhile: Mutex::new(None),
            line: Mutex::default(),
            inside: Mutex::default(),
        })
    }

    fn inside(&self) -> Locked<'_, Inside> {
        lock(&self.inside)
    }

    fn may_fail(&self) -> Result<(), MsiError> {
        assert_task();
        count_down(&self.fail_in).then_some(()).ok_or(FAULT)
    }

    fn doorbell(&self, cpu: Cpu) -> u64 {
        match self.kind {
            Addressing::Stays => 0x0809_0040,
            Addressing::NamesCpu => 0x080a_0040 + u64::from(cpu.get()) * 0x2_0000,
            Addressing::NamesCpuFarApart => 0x080a_0040 + (u64::from(cpu.get()) << 32),
        }
    }

    fn data(&self, hwirq: HwIrq) -> u32 {
        hwirq.get() + self.skew.load(Ordering::Relaxed)
    }

    /// Receives a device's message. Panics if it is torn or stray.
    pub(crate) fn signal(&self, message: MsiMessage) {
        let mut inside = self.inside();
        let hwirq = HwIrq::new(message.data);
        let line = inside.lines.get(&hwirq).unwrap_or_else(|| panic!("stray message {message:x?}"));
        let cpu = match self.kind {
            Addressing::Stays => line.cpu,
            Addressing::NamesCpu | Addressing::NamesCpuFarApart => {
                let named =
                    (0..64).map(Cpu::new).find(|cpu| self.doorbell(*cpu) == message.address);
                named.unwrap_or_else(|| panic!("torn message {message:x?}"))
            }
        };
        inside.pending.insert((cpu, hwirq));
    }

    /// Reads the acknowledge register on a CPU.
    pub(crate) fn acknowledge(&self, cpu: u32) -> Option<HwIrq> {
        let mut inside = self.inside();
        let cpu = Cpu::new(cpu);
        let found = inside.pending.iter().copied().find(|(place, hwirq)| {
            *place == cpu && inside.lines.get(hwirq).is_some_and(|line| !line.masked)
        })?;
        inside.pending.remove(&found);
        Some(found.1)
    }

    pub(crate) fn is_masked(&self, hwirq: HwIrq) -> bool {
        self.inside().lines[&hwirq].masked
    }

    pub(crate) fn pending_at(&self) -> Vec<(Cpu, HwIrq)> {
        self.inside().pending.iter().copied().collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<MoveOutcome> {
        self.inside().outcomes.clone()
    }

    pub(crate) fn set_unreachable(&self, cpu: u32) {
        self.inside().unreachable.insert(Cpu::new(cpu));
    }

    /// Moves a vector without involving the core, as a controller does when a CPU is turned off.
    pub(crate) fn displace(&self, hwirq: HwIrq, cpu: Cpu) {
        self.inside().lines.get_mut(&hwirq).unwrap().cpu = cpu;
    }

    fn set_masked(&self, hwirq: HwIrq, masked: bool) {
        match self.inside().lines.get_mut(&hwirq) {
            Some(line) => line.masked = masked,
            None => judge(false, "masked or unmasked after it was freed"),
        }
    }

    fn take_back(&self, device: &Attachment, block: &HwIrqBlock) {
        let mut inside = self.inside();
        for index in 0..block.count().get() {
            let hwirq = block.hwirq(index).unwrap();
            let line = inside.lines.remove(&hwirq);
            judge(line.is_some_and(|line| !line.moving), "freed twice, or while it moves");
            let of_device = inside.devices.get_mut(&key(device));
            judge(of_device.is_some_and(|vectors| vectors.remove(&hwirq)), "not the device's");
            inside.pending.retain(|(_, pending)| *pending != hwirq);
        }
    }

    /// Returns the number of allocated vectors.
    pub(crate) fn vectors_in_use(&self) -> usize {
        self.inside().lines.len()
    }

    /// Returns the numbers of allocated vectors and attached devices.
    pub(crate) fn in_use(&self) -> (usize, usize) {
        (self.vectors_in_use(), self.devices_attached())
    }

    /// Returns the number of attached devices.
    pub(crate) fn devices_attached(&self) -> usize {
        self.inside().devices.len()
    }
}

fn key(attachment: &Attachment) -> (RequesterId, u32) {
    (attachment.requester(), attachment.cookie())
}

fn find_free(inside: &Inside, capacity: u32, count: u32, alignment: u32) -> Option<u32> {
    let starts = (FIRST..FIRST + capacity).step_by(alignment as usize);
    starts.filter(|start| start + count <= FIRST + capacity).find(|start| {
        (*start..start + count).all(|hwirq| !inside.lines.contains_key(&HwIrq::new(hwirq)))
    })
}

impl MsiParent for Controller {
    fn isolation(&self, _: RequesterId) -> Isolation {
        *self.isolation.lock().unwrap()
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&self.tier.lock().unwrap());
    }

    fn release(&self, device: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        assert_task();
        self.releases.fetch_add(1, Ordering::Relaxed);
        blocks.for_each(|block| self.take_back(&device, &block));
        self.detach(device);
    }

    fn line(&self, _: HwIrq) -> Option<HwIrq> {
        *self.line.lock().unwrap()
    }

    fn doorbell_page(&self, _: Granule) -> DoorbellPage {
        *self.page.lock().unwrap()
    }

    fn attach(&self, device: RequesterId, _: u32) -> Result<Attachment, MsiError> {
        self.may_fail()?;
        lock(&self.requesters).push(device);
        let mut inside = self.inside();
        // Different requesters have the same cookies, as at controllers without a device table.
        let is_free = |cookie: &u32| !inside.devices.contains_key(&(device, *cookie));
        let attachment =
            Attachment::new(device, (0..u32::MAX).find(is_free).expect("a free cookie"));
        inside.devices.insert(key(&attachment), BTreeSet::new());
        Ok(attachment)
    }

    fn detach(&self, device: Attachment) {
        assert_task();
        let vectors = self.inside().devices.remove(&key(&device));
        judge(vectors.is_some_and(|vectors| vectors.is_empty()), "detached twice, or with vectors");
    }

    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        assert!(among.contains(&request.cpu));
        let block = self.allocate(device, request)?;
        lock(&self.managed).push(among.to_vec());
        Ok(block)
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        self.may_fail()?;
        let hook = self.meanwhile.lock().unwrap().take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        *lock(&self.fit) = Some(request.fit);
        let mut inside = self.inside();
        if inside.unreachable.contains(&request.cpu) {
            return Err(MsiError::NotReachable(request.cpu, "unreachable in this test"));
        }
        let count = u32::from(request.count.get());
        let alignment = match request.shape {
            Shape::Independent => 1,
            Shape::AlignedGroup => count,
        };
        let wanted = request.count.get();
        let first = find_free(&inside, self.capacity, count, alignment)
            .ok_or(MsiError::NoVectors { wanted })?;
        request
            .fit
            .check(MsiMessage { address: self.doorbell(request.cpu), data: first + count - 1 })?;
        for hwirq in (first..first + count).map(HwIrq::new) {
            let group = match request.shape {
                Shape::AlignedGroup if self.kind != Addressing::Stays => {
                    (HwIrq::new(first), request.count)
                }
                _ => (hwirq, NonZeroU16::MIN),
            };
            let masked = request.initially == Initially::Masked;
            inside.lines.insert(hwirq, Line { cpu: request.cpu, masked, group, moving: false });
            inside.devices.get_mut(&key(device)).expect("not attached").insert(hwirq);
        }
        Ok(HwIrqBlock::new(HwIrq::new(first), request.count))
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        assert_task();
        self.frees.fetch_add(1, Ordering::Relaxed);
        self.take_back(device, &block);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.may_fail()?;
        let hwirq = block.hwirq(index).expect("index past the block");
        let inside = self.inside();
        Ok(MsiMessage { address: self.doorbell(inside.lines[&hwirq].cpu), data: self.data(hwirq) })
    }

    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let assert = self.compose(block, index)?;
        assert!(
            block.hwirq(index).is_some_and(|hwirq| self.is_masked(hwirq)),
            "a level while it is forwarded"
        );
        Ok(LevelMessages {
            assert,
            deassert: MsiMessage { address: assert.address + 0x10_0000, ..assert },
        })
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        self.may_fail()?;
        let mut inside = self.inside();
        if inside.unreachable.contains(&to) {
            return Err(MsiError::NotReachable(to, "unreachable in this test"));
        }
        let hwirq = block.hwirq(index).expect("index past the block");
        let line = inside.lines.get_mut(&hwirq).expect("moved after it was freed");
        assert!(!line.moving, "moved twice concurrently");
        line.moving = true;
        let (first, count) = line.group;
        let message = (self.kind != Addressing::Stays)
            .then(|| MsiMessage { address: self.doorbell(to), data: self.data(first) });
        Ok(Move { first, count, message, from: line.cpu, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        assert_task();
        let mut inside = self.inside();
        for offset in 0..u32::from(moved.count.get()) {
            let line = inside
                .lines
                .get_mut(&moved.first.checked_add(offset).unwrap())
                .expect("freed in a move");
            line.moving = false;
            if outcome == MoveOutcome::Written {
                line.cpu = moved.to;
            }
        }
        inside.outcomes.push(outcome);
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        self.mask_calls.fetch_add(1, Ordering::Relaxed);
        self.set_masked(hwirq, true);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.unmask_calls.fetch_add(1, Ordering::Relaxed);
        self.set_masked(hwirq, false);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        let mut inside = self.inside();
        let Some(cpu) = inside.lines.get(&hwirq).map(|line| line.cpu) else {
            return judge(false, "set pending after it was freed");
        };
        match pending {
            Pending::Set => drop(inside.pending.insert((cpu, hwirq))),
            Pending::Clear => inside.pending.retain(|(_, other)| *other != hwirq),
        }
    }

    fn explain(&self, hwirq: HwIrq, requester: RequesterId) -> Explanation {
        assert_task();
        assert!(lock(&self.requesters).contains(&requester), "not an attached requester");
        if self.is_masked(hwirq) {
            return Explanation::stopped(Obstacle::Disabled { interrupt: hwirq });
        }
        Explanation::new().with_fact(Fact::Enabled(0xa0))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "mock controller: vector {hwirq}")
    }
}
