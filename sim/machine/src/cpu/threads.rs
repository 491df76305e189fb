//! Runs each CPU on its own thread, which executes the trap loop and sleeps when idle.

use super::core::CpuCore;
use super::sleepers::SleepingCpus;
use super::work::{Cpus, Work};
use doorbell_hardware::lock::lock;
use msi_types::Cpu;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

/// Queue of work for a CPU.
type Mailbox = Mutex<VecDeque<Work>>;

/// The CPU threads, which end when this value is dropped.
pub(crate) struct CpuThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    mailboxes: Vec<Mailbox>,
    sleepers: Arc<SleepingCpus>,
    stop: AtomicBool,
}

impl CpuThreads {
    /// Starts one thread per CPU.
    pub(crate) fn start(cores: &[Arc<CpuCore>], sleepers: &Arc<SleepingCpus>) -> Self {
        let mailboxes = cores.iter().map(|_| Mailbox::default()).collect();
        let shared = Arc::new(Shared {
            mailboxes,
            sleepers: Arc::clone(sleepers),
            stop: AtomicBool::new(false),
        });
        let cpus = (0..).map(Cpu::new).zip(cores);
        let threads = cpus.map(|(cpu, core)| {
            let (shared, core) = (Arc::clone(&shared), Arc::clone(core));
            thread::spawn(move || shared.run(cpu, &core))
        });
        Self { threads: threads.collect(), shared }
    }
}

impl Shared {
    fn run(&self, cpu: Cpu, core: &CpuCore) {
        loop {
            while core.take_one() {}
            if let Some(work) = self.next_work(cpu) {
                work(core);
            } else if self.stop.load(Ordering::Acquire) {
                return;
            } else if core.may_sleep() {
                self.sleepers.sleep(cpu);
                core.woken();
            }
        }
    }

    fn next_work(&self, cpu: Cpu) -> Option<Work> {
        lock(self.mailboxes.get(cpu.index())?).pop_front()
    }
}

impl CpuThreads {
    /// Returns `true` if there was a time during this call at which all CPUs slept and none of them
    /// had been kicked.
    pub(crate) fn are_asleep(&self) -> bool {
        self.shared.sleepers.are_asleep(self.threads.len())
    }
}

impl Cpus for CpuThreads {
    fn count(&self) -> usize {
        self.threads.len()
    }

    fn run_on(&self, cpu: Cpu, work: Work) {
        let Some(mailbox) = self.shared.mailboxes.get(cpu.index()) else { return };
        let (done, wait) = mpsc::channel();
        lock(mailbox).push_back(Box::new(move |core: &CpuCore| {
            work(core);
            // The caller waits below until the CPU has answered.
            let _ = done.send(());
        }));
        self.shared.sleepers.call(cpu);
        // If receiving fails, the CPU's thread has ended without a result.
        let _ = wait.recv();
    }
}

impl Drop for CpuThreads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for (cpu, thread) in (0..).map(Cpu::new).zip(self.threads.drain(..)) {
            self.shared.sleepers.call(cpu);
            // If the CPU's thread panicked, it has already printed its message.
            let _ = thread.join();
        }
    }
}
