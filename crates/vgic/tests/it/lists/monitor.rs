//! A monitor that pauses, saves and resumes its machine while devices signal. Every other time, the
//! machine moves into a new model. Each vCPU's thread owns the vCPU, which has a software CPU
//! interface or list registers ([`Half`]), and pauses it by reference.

use super::its::Translated;
use doorbell_test_support::guest::{Half, Interface, Kicks, Machine, movi, send};
use gic_arch::icc;
use msi_types::{Cpu, Kick, Line, SetLine};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, OnceLock, RwLock};
use std::thread::{self, Thread};
use vgic::{GuestMemory, Sleep, Vcpu, Vgic};

const CPUS: u16 = 4;
const ROUNDS: u64 = 1000;
/// Number of LPIs, which are the first sources, and of edge-triggered SPIs, which are the others.
const EACH: u32 = Translated::EVENTS;
const LPI: u32 = 8192;
const SPI: u32 = 32;

/// Numbers of signals and interrupts of one source, independent of the model. A device signals only
/// after the last interrupt was acknowledged, so each signal must cause exactly one interrupt.
#[derive(Default, Debug)]
struct Source {
    sent: AtomicU64,
    taken: AtomicU64,
}

impl Source {
    fn is_idle(&self) -> bool {
        self.sent.load(SeqCst) == self.taken.load(SeqCst)
    }
}

/// The vCPUs' threads, and their flags that make guests with list registers exit.
struct Threads(Kicks, [OnceLock<Thread>; CPUS as usize]);

impl Kick for Threads {
    fn kick(&self, vcpu: Cpu) {
        self.0.kick(vcpu);
        self.1[vcpu.index()].get().iter().for_each(|thread| thread.unpark());
    }
}

struct Monitor {
    /// The current model. Devices hold this lock while they signal.
    bus: RwLock<Arc<Vgic>>,
    memory: Arc<dyn GuestMemory>,
    threads: Arc<Threads>,
    sources: Vec<Source>,
    pauses: AtomicBool,
    rendezvous: Barrier,
    /// Requests to stop, for the devices and for the vCPUs.
    stops: [AtomicBool; 2],
}

impl Monitor {
    /// Gives odd vCPUs list registers.
    fn half(&self, vcpu: Vcpu) -> Half {
        match u8::try_from(vcpu.cpu().get()).unwrap() {
            even if even % 2 == 0 => Half::Software(vcpu),
            odd => {
                let kicked = self.threads.0.flag(vcpu.cpu().index());
                Half::lists(vcpu, odd, kicked)
            }
        }
    }

    fn source(&self, intid: u32) -> Option<&Source> {
        let index = intid.checked_sub(LPI).or(intid.checked_sub(SPI).map(|spi| EACH + spi));
        self.sources.get(index? as usize)
    }

    /// The thread of a vCPU.
    fn run_vcpu(&self, mut half: Half, moved: &Receiver<Half>) {
        while !self.stops[1].load(SeqCst) {
            let intid = u32::try_from(half.read_sysreg(icc::IAR1.encoding()).unwrap()).unwrap();
            if let Some(source) = self.source(intid) {
                source.taken.fetch_add(1, SeqCst);
            }
            if self.pauses.load(SeqCst) {
                let paused = half.pause();
                self.rendezvous.wait(); // All vCPUs are paused.
                self.rendezvous.wait(); // The machine has been saved.
                paused.resume();
                half = moved.try_iter().next().unwrap_or(half);
            }
            if intid != 1023 {
                half.write_sysreg(icc::EOIR1.encoding(), intid.into()).unwrap();
            } else if half.prepare_to_sleep() == Sleep::Ready {
                thread::park();
                half.returned();
            }
        }
    }

    /// The thread of a device, which signals every other source.
    fn run_device(&self, first: u32) {
        let sources = (first..2 * EACH).step_by(2).cycle();
        for index in sources.take_while(|_| !self.stops[0].load(SeqCst)) {
            let gic = self.bus.read().unwrap();
            let source = &self.sources[index as usize];
            if source.is_idle() {
                source.sent.fetch_add(1, SeqCst);
                let _ = match index.checked_sub(EACH) {
                    None => send(&gic, 1, index),
                    Some(spi) => gic.pulse(Line::Spi(SPI + spi)),
                };
            }
        }
    }

    fn wake_all(&self) {
        (0..CPUS).for_each(|cpu| self.threads.kick(Cpu::new(cpu.into())));
    }

    /// Pauses, saves and resumes the machine. With `moved`, it resumes in a new model.
    fn snapshot(&self, moved: Option<&[Sender<Half>]>) {
        self.pauses.store(true, SeqCst);
        self.wake_all();
        self.rendezvous.wait();
        assert!(self.bus.read().unwrap().save().is_ok()); // Devices signal concurrently.
        if let Some(moved) = moved {
            let mut bus = self.bus.write().unwrap(); // Later signals reach the new model.
            let bytes = postcard::to_allocvec(&bus.save().unwrap()).unwrap();
            let (config, kick) = (bus.config().clone(), self.threads.clone());
            let (gic, vcpus) = Vgic::new(config, self.memory.clone(), kick).unwrap();
            let mut halves: Vec<_> = vcpus.into_iter().map(|vcpu| self.half(vcpu)).collect();
            let paused: Vec<_> = halves.iter_mut().map(Half::pause).collect();
            gic.restore(&postcard::from_bytes(&bytes).unwrap()).unwrap();
            drop(paused);
            *bus = gic;
            halves.into_iter().zip(moved).for_each(|(half, to)| to.send(half).unwrap());
        }
        self.pauses.store(false, SeqCst);
        self.rendezvous.wait();
    }

    /// Waits, but not forever, until `done` returns `true`.
    fn wait(&self, done: impl Fn(&[Source]) -> bool) {
        let _ = (0..20_000_000).find(|_| {
            thread::yield_now();
            done(&self.sources)
        });
    }
}

/// Boots a guest that distributes its LPIs and SPIs over the vCPUs.
fn boot(threads: Arc<Threads>) -> Machine {
    let translated = Translated::kicking(CPUS, threads);
    for (number, cpu) in (0..EACH).zip((0..CPUS).cycle()) {
        translated.run([movi(1, number, cpu)]);
        let machine = &translated.machine;
        machine.make_edge(SPI + number);
        machine.route_to(SPI + number, usize::from(cpu));
        machine.enable_spi(SPI + number);
    }
    translated.machine
}

#[test]
fn pauses_under_load_neither_lose_nor_duplicate_interrupts() {
    let threads = Arc::new(Threads(Kicks::new(CPUS.into()), Default::default()));
    let Machine { gic, vcpus, ram, .. } = boot(threads.clone());
    let (sources, stops) = ((0..2 * EACH).map(|_| Source::default()).collect(), Default::default());
    let (pauses, rendezvous) = (AtomicBool::new(false), Barrier::new(usize::from(CPUS) + 1));
    let bus = RwLock::new(gic);
    let monitor = &Monitor { bus, memory: ram, threads, sources, pauses, rendezvous, stops };
    thread::scope(|scope| {
        let mut moved = Vec::new();
        for vcpu in vcpus {
            let (to, from) = channel();
            moved.push(to);
            let (thread, half) = (&monitor.threads.1[vcpu.cpu().index()], monitor.half(vcpu));
            scope.spawn(move || {
                thread.set(thread::current()).unwrap();
                monitor.run_vcpu(half, &from);
            });
        }
        let [one, other] = [0, 1].map(|first| scope.spawn(move || monitor.run_device(first)));
        for round in 1..=ROUNDS {
            let taken = |source: &Source| source.taken.load(SeqCst);
            monitor.wait(|sources| sources.iter().map(taken).sum::<u64>() >= round * 8);
            monitor.snapshot((round % 2 == 0).then_some(&moved));
        }
        monitor.stops[0].store(true, SeqCst);
        one.join().and(other.join()).unwrap();
        monitor.wait(|sources| sources.iter().all(Source::is_idle));
        monitor.stops[1].store(true, SeqCst);
        monitor.wake_all();
    });
    for source in &monitor.sources {
        assert!(source.is_idle() && source.sent.load(SeqCst) > 0, "{source:?}");
    }
}
