//! Allocation of vectors on all CPUs.
//!
//! A vector is an interrupt's only on one CPU, so that the matrix of CPUs and vectors is what is
//! handed out. Some of it is set aside:
//! - *system* vectors are the kernel's own, on all CPUs;
//! - *managed* vectors are set aside on each CPU of a set, whether on line or not. They are for an
//!   interrupt that is to follow those CPUs as they come and go (a queue per CPU). Moving it never
//!   fails for want of a vector;
//! - *normal* vectors are taken from the rest when they are needed.
//!
//! The caller chooses the CPU: the interrupt core spreads interrupts, for every controller alike.

mod bitmap;

use crate::apic::{ApicVector, CpuVector};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use bitmap::Bitmap;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// A vector was not handed out or taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The caller named a CPU that the matrix was not made for.
    #[error("CPU {0} is not one of those that the matrix was made for")]
    UnknownCpu(Cpu),
    /// The CPU is off line, or has no vector left.
    #[error("CPU {0} is off line or has no free vector")]
    Exhausted(Cpu),
    /// The caller asked for a certain vector that is not free.
    #[error("{0} is taken")]
    Taken(CpuVector),
    /// The caller gave back what was not handed out.
    #[error("{0} is not handed out")]
    NotAllocated(CpuVector),
    /// The caller gave back more managed vectors than there are.
    #[error("CPU {0} has no managed vector that is set aside and unused")]
    NotManaged(Cpu),
}

/// The vectors of all CPUs.
#[derive(Debug)]
pub struct VectorMatrix {
    window: (ApicVector, ApicVector),
    system: Bitmap,
    cpus: Vec<CpuMap>,
    available: u32,
}

#[derive(Clone, Debug)]
struct CpuMap {
    online: bool,
    allocated: Bitmap,
    managed: Bitmap,
    /// Normal vectors that are free, on line or not.
    available: u32,
}

impl VectorMatrix {
    /// The vectors of `window` but for `system`'s, on `cpus` CPUs that are all off line.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(
        cpus: NonZeroU16,
        window: RangeInclusive<ApicVector>,
        system: &[ApicVector],
    ) -> Result<Self, TryReserveError> {
        let window = window.into_inner();
        let system: Bitmap =
            system.iter().copied().filter(|v| (window.0..=window.1).contains(v)).collect();
        let size = window.0.up_to(window.1).filter(|vector| !system.contains(*vector)).count();
        let cpu = CpuMap {
            online: false,
            allocated: Bitmap::default(),
            managed: Bitmap::default(),
            available: u32::try_from(size).unwrap_or(0),
        };
        let cpus = try_collect((0..cpus.get()).map(|_| cpu.clone()))?;
        Ok(Self { window, system, cpus, available: 0 })
    }

    /// The CPU's vectors may be handed out from now on. Nothing if they may already.
    pub fn online(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        let map = self.cpus.get_mut(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))?;
        if !map.online {
            map.online = true;
            self.available += map.available;
        }
        Ok(())
    }

    /// No vector of the CPU is handed out until it is on line again. What was handed out stays so.
    pub fn offline(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        let map = self.cpus.get_mut(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))?;
        if map.online {
            map.online = false;
            self.available -= map.available;
        }
        Ok(())
    }

    /// Hands out the lowest free normal vector of a CPU on line.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`], [`MatrixError::Exhausted`].
    pub fn allocate(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        self.check_usable(cpu)?;
        let vector = self.free_vectors(cpu).next().ok_or(MatrixError::Exhausted(cpu))?;
        self.take_checked(CpuVector { cpu, vector })
    }

    /// Hands out a normal vector of `cpu` for an interrupt whose vector can never change. It is the
    /// one that is free on most CPUs on line, so that the interrupt can move. Of equals it is the
    /// highest, where others come last.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn allocate_common(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        self.check_usable(cpu)?;
        let free_on =
            |vector| self.cpus.iter().filter(|map| map.online && self.is_free(map, vector)).count();
        let vector = self.free_vectors(cpu).max_by_key(|v| free_on(*v));
        let vector = vector.ok_or(MatrixError::Exhausted(cpu))?;
        self.take_checked(CpuVector { cpu, vector })
    }

    /// Hands out a certain normal vector of a CPU on line.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`], [`MatrixError::Exhausted`] if the CPU is off line,
    /// [`MatrixError::Taken`].
    pub fn take(&mut self, cpu_vector: CpuVector) -> Result<CpuVector, MatrixError> {
        let map = self.map(cpu_vector.cpu)?;
        if !map.online {
            return Err(MatrixError::Exhausted(cpu_vector.cpu));
        }
        let within = (self.window.0..=self.window.1).contains(&cpu_vector.vector);
        if !within || !self.is_free(map, cpu_vector.vector) {
            return Err(MatrixError::Taken(cpu_vector));
        }
        self.take_checked(cpu_vector)
    }

    /// Takes a vector back, normal or managed; a managed one stays set aside.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`], [`MatrixError::NotAllocated`].
    pub fn free(&mut self, cpu_vector: CpuVector) -> Result<(), MatrixError> {
        let map = self
            .cpus
            .get_mut(cpu_vector.cpu.index())
            .ok_or(MatrixError::UnknownCpu(cpu_vector.cpu))?;
        if !map.allocated.remove(cpu_vector.vector) {
            return Err(MatrixError::NotAllocated(cpu_vector));
        }
        if !map.managed.contains(cpu_vector.vector) {
            map.available += 1;
            self.available += u32::from(map.online);
        }
        Ok(())
    }

    /// Sets one vector aside on each CPU of the set, on line or not: all or nothing. Their numbers
    /// may differ.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`], [`MatrixError::Exhausted`] if a CPU has none left.
    pub fn reserve_managed(&mut self, on: &[Cpu]) -> Result<(), MatrixError> {
        for (done, cpu) in on.iter().enumerate() {
            // A CPU may be named more than once.
            let before = on.iter().take(done).filter(|other| *other == cpu).count();
            let available = self.map(*cpu)?.available;
            if usize::try_from(available).is_ok_and(|available| available <= before) {
                return Err(MatrixError::Exhausted(*cpu));
            }
        }
        for cpu in on {
            let vector = self.free_vectors(*cpu).next();
            if let Some((map, vector)) = self.cpus.get_mut(cpu.index()).zip(vector) {
                map.managed.insert(vector);
                map.available -= 1;
                self.available -= u32::from(map.online);
            }
        }
        Ok(())
    }

    /// No longer sets aside one vector on each CPU of the set, of those that no interrupt uses.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`]; [`MatrixError::NotManaged`] if a CPU has none: the others are
    /// released.
    pub fn release_managed(&mut self, on: &[Cpu]) -> Result<(), MatrixError> {
        let mut result = Ok(());
        for cpu in on {
            result = result.and(self.release_managed_on(*cpu));
        }
        result
    }

    /// Hands out the lowest managed vector of a CPU on line that is not in use.
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`]; [`MatrixError::Exhausted`] if the CPU is off line or has none.
    pub fn allocate_managed(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        let map = self.cpus.get_mut(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))?;
        let unused =
            |vector: &ApicVector| map.managed.contains(*vector) && !map.allocated.contains(*vector);
        let vector = self.window.0.up_to(self.window.1).find(unused).filter(|_| map.online);
        let vector = vector.ok_or(MatrixError::Exhausted(cpu))?;
        map.allocated.insert(vector);
        Ok(CpuVector { cpu, vector })
    }

    /// A managed vector that is in use is a normal one from now on: free for all once it is [taken
    /// back](Self::free).
    ///
    /// # Errors
    /// [`MatrixError::UnknownCpu`]; [`MatrixError::NotManaged`] if it is no managed one, or is not
    /// in use.
    pub fn unmanage(&mut self, cpu_vector: CpuVector) -> Result<(), MatrixError> {
        let map = self
            .cpus
            .get_mut(cpu_vector.cpu.index())
            .ok_or(MatrixError::UnknownCpu(cpu_vector.cpu))?;
        if !map.allocated.contains(cpu_vector.vector) || !map.managed.remove(cpu_vector.vector) {
            return Err(MatrixError::NotManaged(cpu_vector.cpu));
        }
        Ok(())
    }

    /// Number of normal vectors that are free on the CPUs on line.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// Number of normal vectors that are free on a CPU, on line or not; 0 for an unknown one.
    pub fn available_on(&self, cpu: Cpu) -> u32 {
        self.map(cpu).map_or(0, |map| map.available)
    }

    /// Returns true if this vector is allocated.
    pub fn is_allocated(&self, cpu_vector: CpuVector) -> bool {
        self.map(cpu_vector.cpu).is_ok_and(|map| map.allocated.contains(cpu_vector.vector))
    }

    /// Returns true if the CPU is online.
    pub fn is_online(&self, cpu: Cpu) -> bool {
        self.map(cpu).is_ok_and(|map| map.online)
    }

    fn take_checked(&mut self, cpu_vector: CpuVector) -> Result<CpuVector, MatrixError> {
        let map = self
            .cpus
            .get_mut(cpu_vector.cpu.index())
            .ok_or(MatrixError::UnknownCpu(cpu_vector.cpu))?;
        map.allocated.insert(cpu_vector.vector);
        map.available -= 1;
        self.available -= 1;
        Ok(cpu_vector)
    }

    fn release_managed_on(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        let map = self.cpus.get_mut(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))?;
        let unused =
            |vector: &ApicVector| map.managed.contains(*vector) && !map.allocated.contains(*vector);
        let vector =
            self.window.0.up_to(self.window.1).find(unused).ok_or(MatrixError::NotManaged(cpu))?;
        map.managed.remove(vector);
        map.available += 1;
        self.available += u32::from(map.online);
        Ok(())
    }

    fn map(&self, cpu: Cpu) -> Result<&CpuMap, MatrixError> {
        self.cpus.get(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))
    }

    fn check_usable(&self, cpu: Cpu) -> Result<(), MatrixError> {
        let map = self.map(cpu)?;
        if map.online && map.available != 0 { Ok(()) } else { Err(MatrixError::Exhausted(cpu)) }
    }

    fn is_free(&self, map: &CpuMap, vector: ApicVector) -> bool {
        !(self.system.contains(vector)
            || map.managed.contains(vector)
            || map.allocated.contains(vector))
    }

    fn free_vectors(&self, cpu: Cpu) -> impl Iterator<Item = ApicVector> {
        let map = self.cpus.get(cpu.index());
        let window = self.window.0.up_to(self.window.1);
        window.filter(move |vector| map.is_some_and(|map| self.is_free(map, *vector)))
    }
}
