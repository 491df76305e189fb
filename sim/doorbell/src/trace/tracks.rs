//! Tracks of a timeline.

use super::chrome::{ChromeWriter, Track};
use doorbell_machine::{Cpu, Report, Trace};
use std::io::{self, Write};
use std::ops::Range;

/// Process that contains the tracks of devices.
const DEVICES: u32 = 1;
/// Process that contains the tracks of controllers.
const CONTROLLERS: u32 = 2;
/// Process that contains the tracks of CPUs.
const CPUS: u32 = 3;

/// Size of the two register frames of an ITS. The second frame contains the doorbell.
const ITS_SIZE: u64 = 0x2_0000;

/// Tracks of devices, controllers and CPUs.
pub(super) struct Tracks {
    devices: Vec<String>,
    /// Doorbells of each controller.
    controllers: Vec<Vec<u64>>,
}

impl Tracks {
    /// Names all tracks.
    pub(super) fn write(
        out: &mut ChromeWriter<impl Write>,
        trace: &Trace,
        report: &Report,
    ) -> io::Result<Self> {
        let tracks = Self {
            devices: trace.devices.clone(),
            controllers: report.controllers.iter().map(|one| one.doorbells.clone()).collect(),
        };
        for (process, name) in [(DEVICES, "devices"), (CONTROLLERS, "controllers"), (CPUS, "CPUs")]
        {
            out.process(process, name)?;
        }
        for (index, name) in (0..).zip(&trace.devices) {
            out.track(Self::device(index), name)?;
        }
        for (index, controller) in report.controllers.iter().enumerate() {
            out.track(tracks.controller_at(index), &controller.id)?;
        }
        out.track(tracks.controller_at(report.controllers.len()), "other addresses")?;
        for cpu in 0..u32::try_from(report.cpus).unwrap_or(u32::MAX) {
            out.track(tracks.cpu(Cpu::new(cpu)), &format!("CPU {cpu}"))?;
        }
        Ok(tracks)
    }

    pub(super) fn device(index: u32) -> Track {
        Track { process: DEVICES, thread: 1 + index }
    }

    pub(super) fn device_name(&self, index: u32) -> &str {
        let index = usize::try_from(index).ok();
        index.and_then(|index| self.devices.get(index)).map_or("", String::as_str)
    }

    /// Returns the track of the controller with a doorbell at `address`.
    pub(super) fn controller(&self, address: u64) -> Track {
        self.controller_where(|doorbells| doorbells.contains(&address))
    }

    /// Returns the track of the ITS whose registers start at `base`.
    pub(super) fn its(&self, base: u64) -> Track {
        let registers: Range<u64> = base..base.saturating_add(ITS_SIZE);
        self.controller_where(|doorbells| doorbells.iter().any(|bell| registers.contains(bell)))
    }

    pub(super) fn cpu(&self, cpu: Cpu) -> Track {
        let before = self.devices.len() + self.controllers.len() + 1;
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        Track { process: CPUS, thread: (1 + before).saturating_add(cpu.get()) }
    }

    fn controller_where(&self, is_it: impl Fn(&Vec<u64>) -> bool) -> Track {
        let index = self.controllers.iter().position(is_it);
        self.controller_at(index.unwrap_or(self.controllers.len()))
    }

    fn controller_at(&self, index: usize) -> Track {
        let thread = u32::try_from(1 + self.devices.len() + index).unwrap_or(u32::MAX);
        Track { process: CONTROLLERS, thread }
    }
}
