//! Load tests: as many interrupts as the runner requests, sent by every CPU and by a device, while
//! their affinities change. No message may be lost: the handler of each vector must see the number
//! of the last message sent.

use crate::controller::LEAVES_PENDING;
use crate::machine::{LAST_UNHANDLED, Machine, UNHANDLED};
use crate::report::{Outcome, Report, check};
use crate::rig::Rig;
use crate::smp;
use crate::soft_device::SoftDevice;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use image_rt::virtio::QUEUE_SLOT;
use image_rt::{cpu, println};

const VECTORS: u16 = 32;
/// Time limit in milliseconds for the load.
const PATIENCE: u64 = 120_000;

pub(super) fn run(machine: &'static Machine, interrupts: u64, report: &mut Report) {
    let name = format!("{interrupts} interrupts under load, with moving affinities: nothing lost");
    report.case(&name, || storm(machine, interrupts));
    let devices = [("edu", 0), ("nvme", 1), ("virtio-rng", QUEUE_SLOT)];
    for (name, slot) in devices.into_iter().filter(|(name, _)| machine.device(name).is_ok()) {
        let each = interrupts / 3 + 1;
        report.case(&format!("{name}: each of {each} messages is taken once"), || {
            each_message(machine, name, slot, each)
        });
    }
    report.case("a device's interrupts follow while they are moved: nothing lost", || {
        moving_device(machine)
    });
}

/// Numbers of messages sent and seen for a vector, and number of handler runs.
#[derive(Default)]
struct Flow {
    sent: AtomicU64,
    seen: AtomicU64,
    runs: AtomicU64,
}

impl Flow {
    fn saw(&self) {
        self.seen.fetch_max(self.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        self.runs.fetch_add(1, Ordering::SeqCst);
    }

    fn is_complete(&self) -> bool {
        self.seen.load(Ordering::SeqCst) == self.sent.load(Ordering::SeqCst)
    }
}

fn storm(machine: &'static Machine, wanted: u64) -> Outcome {
    let flows: Arc<Vec<Flow>> = Arc::new((0..VECTORS).map(|_| Flow::default()).collect());
    let seen = flows.clone();
    let device = SoftDevice::new(machine, VECTORS, move |slot, _| seen[usize::from(slot)].saw())?;
    let unhandled = UNHANDLED.load(Ordering::Acquire);
    let stop = Arc::new(AtomicBool::new(false));
    let cpus = machine.online_cpus();
    for cpu in cpus.iter().skip(1) {
        let (flows, sender, stop) = (flows.clone(), device.sender.clone(), stop.clone());
        let mut slot = cpu.get() as u16;
        smp::start_on(*cpu, move || {
            while !stop.load(Ordering::Relaxed) {
                slot = (slot + 7) % VECTORS;
                flows[usize::from(slot)].sent.fetch_add(1, Ordering::SeqCst);
                sender.fire(slot);
            }
        });
    }
    let total = |count: fn(&Flow) -> &AtomicU64| -> u64 {
        flows.iter().map(|flow| count(flow).load(Ordering::SeqCst)).sum()
    };
    let start = cpu::ticks();
    let mut moves = 0;
    while total(|flow| &flow.runs) < wanted
        && cpu::ticks() - start < PATIENCE * cpu::ticks_per_millisecond()
    {
        for slot in 0..VECTORS {
            flows[usize::from(slot)].sent.fetch_add(1, Ordering::SeqCst);
            device.fire(slot);
        }
        let slot = moves % usize::from(VECTORS);
        let to = cpus[(moves / usize::from(VECTORS) + slot) % cpus.len()];
        machine.route(&device.handles[slot], to)?;
        moves += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for cpu in &cpus {
        smp::wait_for(*cpu)?;
    }
    cpu::wait_until(2000, || flows.iter().all(Flow::is_complete));
    if LEAVES_PENDING.load(Ordering::Relaxed) {
        // The interrupt is pending at one of the vector's previous targets.
        for (handle, flow) in device.handles.iter().zip(flows.iter()) {
            for cpu in cpus.iter().filter(|_| !flow.is_complete()) {
                handle.set_affinity(*cpu)?;
                cpu::wait_until(100, || flow.is_complete());
            }
        }
    }
    let lost = flows.iter().filter(|flow| !flow.is_complete()).count();
    let (sent, runs) = (total(|flow| &flow.sent), total(|flow| &flow.runs));
    let redelivered: u64 = device.handles.iter().map(irq_domain::IrqHandle::redelivered).sum();
    println!(
        "note - load: {sent} sent, {runs} delivered, {redelivered} redelivered, {moves} moves"
    );
    check!(lost == 0, "{lost} vectors did not see their last message");
    check!(runs <= sent + redelivered, "{runs} runs of {sent} messages");
    check!(runs >= wanted, "{runs} of {wanted} runs in {PATIENCE} ms");
    let strays = UNHANDLED.load(Ordering::Acquire) - unhandled;
    let latest = LAST_UNHANDLED.load(Ordering::Acquire);
    check!(strays == 0, "{strays} interrupts had no handler, the last was {latest}");
    device.tear_down()
}

/// Makes a device send messages, now and then while their vector is disabled.
fn each_message(machine: &Machine, name: &str, slot: u16, messages: u64) -> Outcome {
    /// One in this number of messages is sent while the vector is disabled.
    const DISABLED: u64 = 100;
    let rig = Rig::of(machine, name)?;
    let (handle, runs) = (&rig.handles[usize::from(slot)], || rig.counts.of(slot));
    for sent in 1..=messages {
        let is_disabled = rig.device.posts() && sent % DISABLED == 0;
        if is_disabled {
            handle.disable();
        }
        rig.device.fire(slot)?;
        if is_disabled {
            let is_early = cpu::wait_until(1, || runs() >= sent);
            handle.enable();
            check!(!is_early, "the handler of a disabled vector ran");
        }
        cpu::wait_until(2000, || runs() >= sent);
        check!(runs() == sent, "{} runs of {sent} messages", runs());
    }
    rig.tear_down()
}

fn moving_device(machine: &'static Machine) -> Outcome {
    const SHOTS: u64 = 500;
    /// Microseconds between two messages, so that other threads can run.
    const PAUSE: u64 = 100;
    let rig = Rig::of(machine, "edu")?;
    let cpus = machine.online_cpus();
    let (device, sent) = (rig.device.clone(), Arc::new(AtomicU64::new(0)));
    let shots = sent.clone();
    let fire = move || {
        for _ in 0..SHOTS {
            shots.fetch_add(1, Ordering::SeqCst);
            if device.fire(0).is_err() {
                return;
            }
            let start = cpu::ticks();
            while (cpu::ticks() - start) * 1000 < PAUSE * cpu::ticks_per_millisecond() {
                core::hint::spin_loop();
            }
        }
    };
    let shooter = cpus[cpus.len() - 1];
    smp::start_on(shooter, fire);
    let mut moves = 0;
    while sent.load(Ordering::SeqCst) < SHOTS || moves < cpus.len() {
        machine.route(&rig.handles[0], cpus[moves % cpus.len()])?;
        moves += 1;
    }
    smp::wait_for(shooter)?;
    machine.route(&rig.handles[0], cpus[0])?;
    let before = rig.counts.of(0);
    check!(
        before > 0 && before <= SHOTS + rig.handles[0].redelivered(),
        "{before} runs of {SHOTS} messages"
    );
    let runs = rig.fire(0, cpus[0])?;
    check!(runs.is_some_and(|runs| runs.there > 0), "after {moves} moves: {runs:?}");
    println!("note - moving device: {SHOTS} sent, {before} delivered, {moves} moves");
    rig.tear_down()
}
