//! A thread that waits for another one's lock leaves the processor to others (feature `std`).
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gic_arch::gits::{self, Cbaser, Cwriter};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};

const ITS: u64 = 0x0808_0000;
const FAULT: Duration = Duration::from_millis(600);

/// Memory whose pages have to be fetched first.
#[derive(Default)]
struct Absent {
    is_read: AtomicBool,
}

impl GuestMemory for Absent {
    fn read(&self, _: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.is_read.store(true, SeqCst);
        thread::sleep(FAULT);
        bytes.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Ok(())
    }
}

/// Time that this thread ran (proc_pid_schedstat(5): the first number, in ns).
fn time_of_this_thread() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[test]
fn a_vcpu_sleeps_while_a_command_waits() {
    let config = VgicConfig::new(1).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)]);
    let memory = Arc::new(Absent::default());
    let (gic, _vcpus) = Vgic::new(config, memory.clone(), Arc::new(|_| {})).unwrap();
    let write =
        |offset: u32, width, value| gic.write(ITS + u64::from(offset), width, value).unwrap();
    let queue = Cbaser::new().with_address(0x4000_0000).with_valid(true);
    write(gits::CBASER.offset(), Double, queue.into_bits());
    write(gits::CTLR.offset(), Word, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            write(gits::CWRITER.offset(), Double, Cwriter::at_offset(32).into_bits());
        });
        while !memory.is_read.load(SeqCst) {
            thread::yield_now();
        }
        let (begun, used) = (Instant::now(), time_of_this_thread());

        gic.read(ITS + u64::from(gits::CREADR.offset()), Double).unwrap();

        let (waited, after) = (begun.elapsed(), time_of_this_thread());
        let used = after.saturating_sub(used);
        assert!(waited > FAULT / 4, "{waited:?}: nothing was to wait for");
        assert!(used < waited / 20, "it ran {used:?} of {waited:?}");
    });
}
