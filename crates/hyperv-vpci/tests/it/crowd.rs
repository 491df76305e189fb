//! Tasks that wait while another task uses the bus. The host's signals never end their wait.

use crate::asleep::full_once;
use crate::board::{
    BUS, OTHER, Ring, SLOT, channel, config, function, host_config, impl_task_context, request,
    spis,
};
use hyperv_vpci::channel::Idle;
use hyperv_vpci::guest::{Bus, Kernel, Wait};
use hyperv_vpci::host::{Host, Injection};
use hyperv_vpci::protocol::Version;
use msi_types::{Attachment, Cpu, HwIrqBlock, MsiParent, Shape};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

type OtherTask = Box<dyn FnOnce() + Send>;

/// Kernel whose first wait runs another task and then checks whether that task woke it.
struct Crowd {
    host: Mutex<(Host, Ring)>,
    other: Mutex<Option<OtherTask>>,
    wake_ups: AtomicU32,
    was_woken: AtomicBool,
}

impl Crowd {
    fn serve(&self) {
        let (host, channel) = &mut *self.host.lock().unwrap();
        host.serve(channel).unwrap();
    }

    fn meanwhile(&self, act: impl FnOnce() + Send + 'static) {
        *self.other.lock().unwrap() = Some(Box::new(act));
    }
}

impl_task_context!(Crowd);

impl Kernel for Crowd {
    fn wake_ups(&self) -> u32 {
        self.wake_ups.load(SeqCst)
    }
    fn wake(&self) {
        self.wake_ups.fetch_add(1, SeqCst);
    }
    fn wait(&self, seen: u32, turn: u32) -> Wait {
        self.serve();
        let other = self.other.lock().unwrap().take();
        if let Some(other) = other {
            other();
            self.was_woken.store(self.wake_ups() != seen, SeqCst);
        }
        if turn < 8 { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

/// Creates a bus with a vector, and a flag that makes the next packet find no room.
fn crowd() -> (Arc<Crowd>, Arc<Bus>, Arc<AtomicBool>, Attachment, HwIrqBlock) {
    let (near, far) = channel();
    let (gic, vectors) = spis();
    let mut host = Host::new(host_config(Version::V1_4), Injection::Spi(gic)).unwrap();
    host.offer(function(SLOT)).unwrap();
    host.offer(function(OTHER)).unwrap();
    let (host, (other, wake_ups, was_woken)) = (Mutex::new((host, far)), Default::default());
    let kernel = Arc::new(Crowd { host, other, wake_ups, was_woken });
    let is_full = Arc::new(AtomicBool::new(false));
    let channel = Box::new(full_once(near, is_full.clone()));
    let bus = Arc::new(Bus::open(config(), channel, vectors, kernel.clone()).unwrap());
    let device = bus.attach(SLOT.requester(BUS), 4).unwrap();
    let block = bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    (kernel, bus, is_full, device, block)
}

#[test]
fn a_task_wakes_tasks_whose_answers_it_received() {
    let (kernel, bus, _, device, block) = crowd();
    let other = bus.clone();
    kernel.meanwhile(move || assert_eq!(other.poll(), Ok(Idle::Sleep)));
    bus.compose(&block, 0).unwrap();
    assert!(kernel.was_woken.swap(false, SeqCst));
    // The other task must also wake a task that waits for the answer to a deletion.
    let other = bus.clone();
    kernel.meanwhile(move || assert_eq!(other.poll(), Ok(Idle::Sleep)));
    bus.free(&device, block);
    assert!(kernel.was_woken.load(SeqCst));
    // A single task wakes no other task.
    let before = kernel.wake_ups();
    let block = bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    bus.compose(&block, 0).unwrap();
    assert_eq!(kernel.wake_ups(), before);
}

/// A sent message cancels another task's request to be signaled when a larger message has room.
#[test]
fn a_sending_task_wakes_tasks_that_wait_for_ring_room() {
    let (kernel, bus, is_full, _device, block) = crowd();
    let other = bus.clone();
    // The ejection's completion is a notice, so the host sends no answer.
    kernel.meanwhile(move || other.eject_complete(OTHER).unwrap());
    is_full.store(true, SeqCst);
    bus.compose(&block, 0).unwrap();
    assert!(kernel.was_woken.load(SeqCst));
}

#[test]
fn a_task_that_closes_the_bus_wakes_a_waiting_task() {
    let (kernel, bus, _, _device, block) = crowd();
    let other = bus.clone();
    kernel.meanwhile(move || other.close().unwrap());
    let _ = bus.compose(&block, 0);
    assert!(kernel.was_woken.load(SeqCst));
}
