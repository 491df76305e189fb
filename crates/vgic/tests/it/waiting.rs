//! Checks that a thread waiting for another thread's lock yields the processor (feature `std`).

use gic_arch::gits::{self, Cbaser, Cwriter};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};

const ITS: u64 = 0x0808_0000;
/// Limit on a thread's processor time; a thread that exceeds it is spinning instead of sleeping.
const AWAKE: Duration = Duration::from_secs(1);

/// Guest memory in which every read blocks until the test sends a message or ends.
struct Absent {
    begun: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl GuestMemory for Absent {
    fn read(&self, _: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        // Ignore the error: the receiver is gone if the test has ended.
        let _ = self.begun.send(());
        let _ = self.go_on.lock().unwrap().recv();
        bytes.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Ok(())
    }
}

/// Returns `true` if a thread sleeps (the state after the parenthesized name in proc_pid_stat(5)).
fn is_asleep(thread: &Path) -> bool {
    let fields = fs::read_to_string(thread.join("stat")).unwrap();
    fields.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// Returns the processor time of a thread in nanoseconds (first number in proc_pid_schedstat(5)).
fn time_of(thread: &Path) -> Duration {
    let statistics = fs::read_to_string(thread.join("schedstat")).unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[test]
fn a_vcpu_waiting_for_a_concurrent_command_sleeps() {
    let (begun, is_begun) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let memory = Arc::new(Absent { begun, go_on: Mutex::new(told) });
    let config = VgicConfig::new(1).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)]);
    let (gic, _vcpus) = Vgic::new(config, memory, Arc::new(|_| {})).unwrap();
    let gic = &gic;
    let write = |offset: u32, width, value| {
        gic.write_until_done(ITS + u64::from(offset), width, value).unwrap();
    };
    let queue = Cbaser::new().with_address(0x4000_0000).with_valid(true);
    write(gits::CBASER.offset(), Double, queue.into_bits());
    write(gits::CTLR.offset(), Word, 1);
    thread::scope(|scope| {
        // Move the sender into the scope: a panic then drops it, which unblocks the writing thread.
        let go_on = go_on;
        scope.spawn(|| {
            write(gits::CWRITER.offset(), Double, Cwriter::at_offset(32).into_bits());
        });
        is_begun.recv().unwrap();
        let (id, identified) = mpsc::channel();
        let reading = scope.spawn(move || {
            id.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
            gic.read(ITS + u64::from(gits::CREADR.offset()), Double).unwrap();
        });
        let thread = Path::new("/proc").join(identified.recv().unwrap());

        while !is_asleep(&thread) {
            assert!(time_of(&thread) < AWAKE, "the thread waits without sleeping");
            thread::yield_now();
        }

        assert!(!reading.is_finished(), "the vCPU must have waited while the command was reading");
        drop(go_on);
    });
}
