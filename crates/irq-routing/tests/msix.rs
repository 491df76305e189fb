//! The MSI-X table against one as simple as it can be, and what other monitors ran into.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;

use controller::{Controller, Heard};
use irq_routing::msix::{BadTableSize, MsixTable, Signalled, VectorObserver};
use irq_routing::{Change, Changes, GsiSpace, Route, RouteError, Router, Routing, Sender, SignalError};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Gsi};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const DEVICE: DeviceId = DeviceId::new(8);
const ENABLED: Control = Control::new().with_enable(true);
const HELD_BACK: Control = ENABLED.with_function_mask(true);
const MASKED: u32 = 1;

/// A router that counts its changes.
struct Counting {
    router: Router,
    commits: Mutex<Vec<Changes>>,
}

impl Counting {
    /// The changes of each commit since the last time.
    fn commits(&self) -> Vec<u32> {
        std::mem::take(&mut *self.commits.lock().unwrap()).iter().map(|changes| changes.made).collect()
    }

    /// Returns the number of free GSIs.
    fn free(&self) -> usize {
        let free: Vec<_> = std::iter::from_fn(|| self.router.allocate().ok()).collect();
        self.router.release(&free).unwrap();
        free.len()
    }
}

impl Routing for Counting {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.router.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.router.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        let changes = self.router.commit(changes)?;
        self.commits.lock().unwrap().push(changes);
        Ok(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.router.signal(gsi)
    }
}

struct Rig {
    table: MsixTable,
    routing: Arc<Counting>,
    controller: Arc<Controller>,
}

fn routing(space: GsiSpace) -> (Arc<Counting>, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    let router = Router::new(space, controller.inputs()).unwrap();
    (Arc::new(Counting { router, commits: Mutex::default() }), controller)
}

fn table(vectors: u16, routing: &Arc<Counting>) -> MsixTable {
    MsixTable::new(vectors, Sender::Device(DEVICE), routing.clone()).unwrap()
}

impl Rig {
    fn new(vectors: u16) -> Self {
        let (routing, controller) = routing(GsiSpace::default());
        Self { table: table(vectors, &routing), routing, controller }
    }
}

/// As a driver does: message first, then the mask bit.
fn program(table: &MsixTable, vector: u16, data: u32, control: u32) -> Result<(), RouteError> {
    let entry = u64::from(vector) * 16;
    table.write(entry, &Controller::ITS.to_le_bytes())?;
    table.write(entry + 8, &data.to_le_bytes())?;
    table.write(entry + 12, &control.to_le_bytes())
}

fn read32(table: &MsixTable, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn pending(table: &MsixTable, word: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read_pending(word * 4, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn event(data: u32) -> Heard {
    Heard::Event(DEVICE, data)
}

#[derive(Clone, Debug)]
enum Step {
    Write { word: u64, wide: bool, values: [u32; 2] },
    Control(Control),
    Signal(u16),
    Reset,
}

fn steps() -> impl Strategy<Value = Step> {
    let low = prop_oneof![Just(0x0809_0040u32), Just(0x0809_0043), any::<u32>()];
    let value = prop_oneof![4 => low, 4 => 0u32..2, 1 => any::<u32>()];
    prop_oneof![
        6 => (0u64..24, any::<bool>(), [value.clone(), value])
            .prop_map(|(word, wide, values)| Step::Write { word, wide, values }),
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(enable, mask)| {
            Step::Control(Control::from(0x07ff).with_enable(enable).with_function_mask(mask))
        }),
        4 => (0u16..6).prop_map(Step::Signal),
        1 => Just(Step::Reset),
    ]
}

/// A table, modelled as plainly as possible.
#[derive(Default)]
struct Model {
    words: [[u32; 4]; 5],
    pending: [bool; 5],
    enable: bool,
    mask: bool,
}

impl Model {
    fn new() -> Self {
        Self { words: [[0, 0, 0, 1]; 5], ..Self::default() }
    }

    fn open(&self, vector: usize) -> bool {
        self.enable && !self.mask && self.words[vector][3] == 0
    }

    fn message(&self, vector: usize) -> Option<Heard> {
        let [low, high, data, _] = self.words[vector];
        (u64::from(high) << 32 | u64::from(low) == Controller::ITS).then_some(event(data))
    }

    /// Returns the messages that unmasking sends.
    fn settle(&mut self) -> Vec<Heard> {
        let sent = (0..5).filter(|vector| self.open(*vector) && self.pending[*vector]).collect::<Vec<_>>();
        sent.into_iter()
            .filter_map(|vector| {
                self.pending[vector] = false;
                self.message(vector)
            })
            .collect()
    }

    fn write(&mut self, word: usize, value: u32) {
        if let Some(entry) = self.words.get_mut(word / 4) {
            entry[word % 4] = [value & !3, value, value, value & 1][word % 4];
        }
    }

    fn step(&mut self, step: &Step) -> (Vec<Heard>, Option<Signalled>) {
        match *step {
            Step::Write { word, wide, values } => {
                let at = usize::try_from(word).unwrap();
                let count = if wide { 2 } else { 1 };
                (0..count).for_each(|index| self.write(at / count * count + index, values[index]));
            }
            Step::Control(control) => (self.enable, self.mask) = (control.enable(), control.function_mask()),
            Step::Signal(vector) if vector >= 5 => return (vec![], Some(Signalled::NoSuchVector)),
            Step::Signal(vector) => {
                let vector = usize::from(vector);
                if !self.open(vector) {
                    self.pending[vector] = true;
                    return (vec![], Some(Signalled::Held));
                }
                let heard = self.message(vector);
                let delivery = if heard.is_some() { Delivery::Pending } else { Delivery::NoDoorbell };
                return (heard.into_iter().collect(), Some(Signalled::Sent(delivery)));
            }
            Step::Reset => *self = Self::new(),
        }
        (self.settle(), None)
    }
}

fn act(table: &MsixTable, step: &Step) -> Option<Signalled> {
    match *step {
        Step::Write { word, wide: false, values: [value, _] } => {
            table.write(word * 4, &value.to_le_bytes()).unwrap();
        }
        Step::Write { word, wide: true, values: [low, high] } => {
            let value = u64::from(high) << 32 | u64::from(low);
            table.write(word / 2 * 8, &value.to_le_bytes()).unwrap();
        }
        Step::Control(control) => table.write_control(control).unwrap(),
        Step::Signal(vector) => return Some(table.signal(vector)),
        Step::Reset => table.reset().unwrap(),
    }
    None
}

proptest! {
    #[test]
    fn unmasked_vectors_send_and_masked_ones_hold(steps in prop::collection::vec(steps(), 0..60)) {
        let rig = Rig::new(5);
        let free = rig.routing.free();
        let mut model = Model::new();
        for step in steps {
            let (heard, signalled) = model.step(&step);
            prop_assert_eq!(act(&rig.table, &step), signalled);
            prop_assert_eq!(rig.controller.heard(), heard, "after {:?}", step);
            for (word, value) in (0..).zip(model.words.as_flattened()) {
                prop_assert_eq!(read32(&rig.table, word * 4), *value);
            }
            let bits = model.pending.iter().rev().fold(0, |bits, pending| bits << 1 | u32::from(*pending));
            prop_assert_eq!(pending(&rig.table, 0), bits);
            let open = (0..5).map(|vector| model.open(vector));
            let gsis: Vec<_> = (0..5).map(|vector| rig.table.gsi(vector).is_some()).collect();
            prop_assert!(open.eq(gsis));
        }
        drop(rig.table);
        prop_assert_eq!(rig.routing.free(), free, "GSIs that were not given back");
        prop_assert_eq!(rig.routing.router.routes(), []);
    }
}

#[test]
fn table_sizes_are_1_to_2048() {
    let (routing, _) = routing(GsiSpace::default());
    for size in [0, 2049, u16::MAX] {
        let refused = MsixTable::new(size, Sender::Anonymous, routing.clone()).unwrap_err();
        assert_eq!(refused, BadTableSize(size));
    }
    assert_eq!(table(2048, &routing).control().table_size(), 2048);
}

#[test]
fn odd_accesses_read_ones_and_write_nothing() {
    let rig = Rig::new(2);
    for (offset, len) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 16), (32, 4), (0x8000, 4), (u64::MAX - 3, 4)] {
        let mut bytes = vec![0; len];
        rig.table.read(offset, &mut bytes);
        assert_eq!(bytes, vec![0xff; len], "{offset:#x}");
        rig.table.write(offset, &vec![0; len]).unwrap();
    }
    assert_eq!([0, 4, 8, 12].map(|offset| read32(&rig.table, offset)), [0, 0, 0, MASKED]);
    assert_eq!([0, 1, 2].map(|word| pending(&rig.table, word)), [0, 0, u32::MAX]);
}

#[test]
fn accesses_of_eight_bytes_are_two_of_four() {
    let rig = Rig::new(2);
    rig.table.write(0x10, &0x1122_3344_5566_7788u64.to_le_bytes()).unwrap();
    let mut bytes = [0; 8];
    rig.table.read(0x10, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344_5566_7788);
    assert_eq!([0x10, 0x14].map(|offset| read32(&rig.table, offset)), [0x5566_7788, 0x1122_3344]);
}

#[test]
fn every_vector_has_its_pending_bit() {
    let rig = Rig::new(70);
    for vector in [0, 31, 32, 63, 64, 69] {
        assert_eq!(rig.table.signal(vector), Signalled::Held);
    }
    let wide = [0, 8].map(|offset| {
        let mut bytes = [0; 8];
        rig.table.read_pending(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    });
    assert_eq!(wide, [1 << 63 | 1 << 32 | 1 << 31 | 1, 1 << 5 | 1]);
    let narrow = [0, 1, 2, 3, 4].map(|word| pending(&rig.table, word));
    assert_eq!(narrow, [1 << 31 | 1, 1 << 31 | 1, 1 << 5 | 1, 0, u32::MAX]);
}

#[test]
fn bus_change_sends_with_the_new_device_id() {
    let rig = Rig::new(2);
    rig.table.write_control(ENABLED).unwrap();
    program(&rig.table, 1, 3, 0).unwrap();
    rig.table.set_sender(Sender::Device(DeviceId::new(0x108))).unwrap();
    rig.table.signal(1);
    assert_eq!(rig.controller.heard(), [Heard::Event(DeviceId::new(0x108), 3)]);
}

/// cloud-hypervisor ran out of its 4096 routes with one 2048-vector NVMe device, as each vector had a route from the
/// beginning.
#[test]
fn large_table_takes_gsis_for_used_vectors() {
    let (routing, controller) = routing(GsiSpace::default());
    let free = routing.free();
    let tables: Vec<_> = (0..8).map(|_| table(2048, &routing)).collect();
    for table in &tables {
        table.write_control(HELD_BACK).unwrap();
        (0..2048).for_each(|vector| program(table, vector, vector.into(), MASKED).unwrap());
        table.write_control(ENABLED).unwrap();
    }
    assert_eq!(routing.free(), free, "all vectors are masked");

    for table in &tables {
        (0..65).for_each(|queue| program(table, queue, queue.into(), 0).unwrap());
        assert_eq!(table.signal(64), Signalled::Sent(Delivery::Pending));
    }

    assert_eq!(controller.heard(), [event(64); 8]);
    assert_eq!(routing.free(), free - 8 * 65);
    for table in &tables {
        table.write_control(Control::new()).unwrap();
    }
    assert_eq!(routing.free(), free, "MSI-X is disabled");
}

#[test]
fn exhausted_gsis_are_reported_and_retried() {
    let (routing, controller) = routing(GsiSpace { limit: 1002, first_allocated: 1000 });
    let (one, other) = (table(4, &routing), table(4, &routing));
    one.write_control(ENABLED).unwrap();
    other.write_control(ENABLED).unwrap();
    program(&one, 0, 10, 0).unwrap();
    program(&one, 1, 11, 0).unwrap();

    let refused = program(&other, 3, 23, 0).unwrap_err();

    assert_eq!(refused, RouteError::GsisExhausted { first: Gsi::new(1000), limit: 1002 });
    assert_eq!(other.signal(3), Signalled::Held);
    assert_eq!(one.signal(1), Signalled::Sent(Delivery::Pending));
    one.reset().unwrap();
    other.write_control(ENABLED).unwrap();
    assert_eq!(controller.heard(), [event(11), event(23)]);
}

#[test]
fn full_table_reuses_gsis_of_masked_vectors() {
    let (routing, controller) = routing(GsiSpace { limit: 1002, first_allocated: 1000 });
    let table = table(4, &routing);
    table.write_control(ENABLED).unwrap();
    program(&table, 0, 10, 0).unwrap();
    program(&table, 1, 11, 0).unwrap();
    program(&table, 0, 10, MASKED).unwrap();

    program(&table, 2, 12, 0).unwrap();

    let signalled = [0, 1, 2].map(|vector| table.signal(vector));
    let sent = Signalled::Sent(Delivery::Pending);
    assert_eq!(signalled, [Signalled::Held, sent, sent]);
    assert_eq!(controller.heard(), [event(11), event(12)]);
    assert_eq!(pending(&table, 0), 1);
}

/// Refused vectors take nothing from those that have their GSIs: a message that changed in the same access is sent.
#[test]
fn refused_vectors_leave_others_working() {
    let (routing, controller) = routing(GsiSpace { limit: 1001, first_allocated: 1000 });
    let table = table(3, &routing);
    table.write_control(ENABLED).unwrap();
    program(&table, 2, 12, 0).unwrap();
    table.write_control(HELD_BACK).unwrap();
    program(&table, 0, 10, 0).unwrap();
    program(&table, 1, 11, 0).unwrap();
    program(&table, 2, 22, 0).unwrap();

    assert!(table.write_control(ENABLED).is_err());

    let signalled = [0, 1, 2].map(|vector| table.signal(vector));
    assert_eq!(signalled, [Signalled::Held, Signalled::Held, Signalled::Sent(Delivery::Pending)]);
    assert_eq!(controller.heard(), [event(22)]);
}

/// A driver that polled has done what the interrupt would have asked for: an unmask must not ask again.
#[test]
fn withdrawn_message_is_not_sent_on_unmask() {
    let rig = Rig::new(2);
    rig.table.write_control(ENABLED).unwrap();
    assert_eq!([0, 1].map(|vector| rig.table.signal(vector)), [Signalled::Held; 2]);

    rig.table.withdraw(1);

    assert_eq!(pending(&rig.table, 0), 1);
    (0..2).for_each(|vector| program(&rig.table, vector, 10 + u32::from(vector), 0).unwrap());
    rig.table.withdraw(0);
    rig.table.withdraw(2);
    assert_eq!(rig.table.signal(0), Signalled::Sent(Delivery::Pending));
    assert_eq!(rig.controller.heard(), [event(10), event(10)]);
}

/// Routes of a host that takes no message with this data.
struct Choosy(Router);

impl Choosy {
    const REFUSED: u32 = 0xbad;
    const ERROR: RouteError = RouteError::Refused { errno: 22 };

    /// A table of three vectors whose first two are unmasked, with messages 10 and 11.
    fn table() -> (MsixTable, Arc<Controller>) {
        let controller = Arc::new(Controller::default());
        let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
        let table = MsixTable::new(3, Sender::Device(DEVICE), Arc::new(Self(router))).unwrap();
        table.write_control(ENABLED).unwrap();
        (0..2).for_each(|vector| program(&table, vector, 10 + u32::from(vector), 0).unwrap());
        (table, controller)
    }
}

impl Routing for Choosy {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.0.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.0.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        let data = |change: &Change| match change.route() {
            Some(Route::Message(routed)) => Some(routed.message.data),
            _ => None,
        };
        if changes.iter().any(|change| data(change) == Some(Self::REFUSED)) {
            return Err(Self::ERROR);
        }
        self.0.commit(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.0.signal(gsi)
    }
}

#[test]
fn routed_vectors_send_despite_a_refused_route() {
    let (table, controller) = Choosy::table();
    table.write_control(HELD_BACK).unwrap();
    program(&table, 2, Choosy::REFUSED, 0).unwrap();
    assert_eq!(table.signal(1), Signalled::Held);

    assert_eq!(table.write_control(ENABLED), Err(Choosy::ERROR));

    assert_eq!(
        [0, 2].map(|vector| table.signal(vector)),
        [Signalled::Sent(Delivery::Pending), Signalled::Held]
    );
    assert_eq!(controller.heard(), [event(11), event(10)]);
}

#[test]
fn overwritten_message_needs_its_new_route() {
    let (table, controller) = Choosy::table();

    assert_eq!(table.write(8, &Choosy::REFUSED.to_le_bytes()), Err(Choosy::ERROR));

    assert_eq!(table.signal(0), Signalled::Held);
    assert_eq!(table.gsi(0), None);
    table.write(8, &13u32.to_le_bytes()).unwrap();
    assert_eq!(controller.heard(), [event(13)]);
}

/// Firecracker's restore went from 15 ms to 1 ms when routes were changed in batches.
#[test]
fn one_access_commits_routes_once() {
    let rig = Rig::new(64);
    rig.table.write_control(HELD_BACK).unwrap();
    (0..64).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
    assert_eq!(rig.routing.commits(), []);

    rig.table.write_control(ENABLED).unwrap();

    assert_eq!(rig.routing.commits(), [64]);
}

/// Firecracker's boot went from 93 ms to 65 ms when updates that change nothing were skipped.
#[test]
fn remasking_without_a_change_commits_nothing() {
    let rig = Rig::new(64);
    rig.table.write_control(ENABLED).unwrap();
    (0..64).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
    rig.routing.commits();

    for control in [MASKED, 0] {
        (0..64).for_each(|vector| program(&rig.table, vector, vector.into(), control).unwrap());
    }
    rig.table.write_control(HELD_BACK).unwrap();
    rig.table.write_control(ENABLED).unwrap();

    assert_eq!(rig.routing.commits(), []);
}

/// Routes that take their time to change.
struct Slow {
    router: Router,
    changing: Mutex<mpsc::Sender<()>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Routing for Slow {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.router.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.router.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        self.changing.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.router.commit(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.router.signal(gsi)
    }
}

/// libkrun gained 5 % when its vCPUs did not share a lock any more: a device's vectors share none with each other, nor
/// with the guest that is changing one of them.
#[test]
fn message_does_not_wait_for_another_vector() {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    let (changing, is_changing) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let slow = Arc::new(Slow { router, changing: Mutex::new(changing), go_on: Mutex::new(told) });
    let table = MsixTable::new(2, Sender::Device(DEVICE), slow).unwrap();
    table.write_control(ENABLED).unwrap();
    go_on.send(()).unwrap();
    program(&table, 0, 10, 0).unwrap();
    is_changing.recv().unwrap();

    thread::scope(|scope| {
        scope.spawn(|| program(&table, 1, 11, 0).unwrap());
        is_changing.recv().unwrap();
        assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
        assert_eq!(table.signal(1), Signalled::Held);
        go_on.send(()).unwrap();
    });

    assert_eq!(controller.heard(), [event(10), event(11)]);
}

#[derive(Default)]
struct Bound(Mutex<Vec<(u16, Option<Gsi>)>>);

impl VectorObserver for Bound {
    fn opened(&self, vector: u16, gsi: Gsi) {
        self.0.lock().unwrap().push((vector, Some(gsi)));
    }

    fn closed(&self, vector: u16, _: Gsi) {
        self.0.lock().unwrap().push((vector, None));
    }
}

#[test]
fn observer_hears_of_vectors_before_gsis_move() {
    let (routing, _) = routing(GsiSpace { limit: 1001, first_allocated: 1000 });
    let bound = Arc::new(Bound::default());
    let table = table(2, &routing).with_observer(bound.clone());
    table.write_control(ENABLED).unwrap();
    program(&table, 1, 11, 0).unwrap();
    program(&table, 1, 12, MASKED).unwrap();
    program(&table, 0, 10, 0).unwrap();
    drop(table);

    let gsi = Some(Gsi::new(1000));
    assert_eq!(*bound.0.lock().unwrap(), [(1, gsi), (1, None), (0, gsi), (0, None)]);
}

/// Devices send while the guest masks, unmasks and disables: nothing is sent that is masked, nothing is lost.
#[test]
fn threads_lose_nothing_and_respect_masks() {
    let rig = Rig::new(4);
    rig.table.write_control(ENABLED).unwrap();
    (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for vector in 0..4 {
            let (table, stop) = (&rig.table, &stop);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    table.signal(vector);
                    thread::yield_now();
                }
            });
        }
        for round in 0..200 {
            match round % 3 {
                0 => (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), MASKED).unwrap()),
                1 => rig.table.write_control(HELD_BACK).unwrap(),
                _ => rig.table.write_control(Control::new()).unwrap(),
            }
            rig.controller.heard();
            thread::yield_now();
            assert_eq!(rig.controller.heard(), [], "round {round}");
            rig.table.write_control(ENABLED).unwrap();
            (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(pending(&rig.table, 0), 0);
}

/// Routes whose signals take long.
struct Lengthy {
    begun: AtomicBool,
}

const LONG: Duration = Duration::from_millis(600);

impl Routing for Lengthy {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        Ok(Gsi::new(0))
    }

    fn release(&self, _: &[Gsi]) -> Result<(), RouteError> {
        Ok(())
    }

    fn commit(&self, _: &[Change]) -> Result<Changes, RouteError> {
        Ok(Changes::default())
    }

    fn signal(&self, _: Gsi) -> Result<Delivery, SignalError> {
        self.begun.store(true, SeqCst);
        thread::sleep(LONG);
        Ok(Delivery::Pending)
    }
}

/// Time that this thread ran (proc_pid_schedstat(5): the first number, in ns).
#[cfg(target_os = "linux")]
fn time_of_this_thread() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[cfg(target_os = "linux")]
#[test]
fn masking_thread_sleeps_until_sent() {
    let lengthy = Arc::new(Lengthy { begun: AtomicBool::new(false) });
    let table = MsixTable::new(1, Sender::Device(DEVICE), lengthy.clone()).unwrap();
    table.write_control(ENABLED).unwrap();
    program(&table, 0, 7, 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| table.signal(0));
        while !lengthy.begun.load(SeqCst) {
            thread::yield_now();
        }
        let (begun, used) = (Instant::now(), time_of_this_thread());

        table.write_control(HELD_BACK).unwrap();

        let (waited, after) = (begun.elapsed(), time_of_this_thread());
        let used = after.saturating_sub(used);
        assert!(waited > LONG / 4, "{waited:?}: nothing was to wait for");
        assert!(used < waited / 20, "it ran {used:?} of {waited:?}");
    });
}
