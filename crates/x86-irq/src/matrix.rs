//! Allocates vectors on all CPUs.
//!
//! On x86, an interrupt is identified by a vector and a CPU, so the allocator manages a matrix of
//! CPUs and vectors. Vectors are of three kinds:
//! - *system* vectors are reserved for the kernel, on all CPUs;
//! - *managed* vectors are reserved on each CPU of a set, whether or not the CPU is online. Managed
//!   vectors are for interrupts that follow a set of CPUs as these go offline and come online again
//!   (e.g. the interrupts of per-CPU queues): moving such an interrupt can't fail for lack of a
//!   vector;
//! - *normal* vectors are all others, which are allocated on demand.
//!
//! The caller chooses the CPU, because the interrupt core balances interrupts across all
//! controllers.

use crate::message::{ApicVector, CpuVector};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// Error from allocating or freeing a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The CPU is not in the matrix.
    #[error("CPU {0} is not one of those that the matrix was made for")]
    UnknownCpu(Cpu),
    /// The CPU is offline, or has no free vector.
    #[error("CPU {0} is offline or has no free vector")]
    Exhausted(Cpu),
    /// The vector that the caller requested is not free.
    #[error("{0} is not free")]
    Taken(CpuVector),
    /// The caller freed a vector that is not allocated.
    #[error("{0} is not allocated")]
    NotAllocated(CpuVector),
    /// The caller released a managed vector on a CPU that has no unused managed vector.
    #[error("CPU {0} has no unused managed vector")]
    NotManaged(Cpu),
}

/// Vector allocator for all CPUs.
#[derive(Debug)]
pub struct VectorMatrix {
    window: (ApicVector, ApicVector),
    system: Bitmap,
    cpus: Vec<CpuMap>,
}

#[derive(Clone, Debug, Default)]
struct CpuMap {
    online: bool,
    allocated: Bitmap,
    managed: Bitmap,
}

impl VectorMatrix {
    /// Creates a matrix for `cpus` CPUs, all offline, with the vectors in `window` except for
    /// `system`.
    ///
    /// # Errors
    /// Returns an error if the kernel's heap is exhausted.
    pub fn new(
        cpus: NonZeroU16,
        window: RangeInclusive<ApicVector>,
        system: &[ApicVector],
    ) -> Result<Self, TryReserveError> {
        let window = window.into_inner();
        let system: Bitmap =
            system.iter().copied().filter(|v| (window.0..=window.1).contains(v)).collect();
        let cpus = try_collect((0..cpus.get()).map(|_| CpuMap::default()))?;
        Ok(Self { window, system, cpus })
    }

    /// Allows allocation of the CPU's vectors. Has no effect if the CPU is already online.
    pub fn online(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        self.map_mut(cpu)?.online = true;
        Ok(())
    }

    /// Prevents allocation of the CPU's vectors until it is online again. Allocated vectors stay
    /// allocated.
    pub fn offline(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        self.map_mut(cpu)?.online = false;
        Ok(())
    }

    /// Allocates the lowest free normal vector on an online CPU.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if the CPU is not in the matrix, or
    /// [`MatrixError::Exhausted`] if the CPU is offline or has no free normal vector.
    pub fn allocate(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        self.check_online(cpu)?;
        let vector = self.free_vectors(cpu).next().ok_or(MatrixError::Exhausted(cpu))?;
        self.insert_allocated(CpuVector { cpu, vector })
    }

    /// Allocates a normal vector on `cpu` for an interrupt whose vector can never change. So that
    /// the interrupt can still move, picks the vector that is free on the most online CPUs. If
    /// several vectors qualify, picks the highest one, which other allocations use last.
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`allocate`](Self::allocate).
    pub fn allocate_common(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        self.check_online(cpu)?;
        let free_on =
            |vector| self.cpus.iter().filter(|map| map.online && self.is_free(map, vector)).count();
        let vector = self.free_vectors(cpu).max_by_key(|v| free_on(*v));
        let vector = vector.ok_or(MatrixError::Exhausted(cpu))?;
        self.insert_allocated(CpuVector { cpu, vector })
    }

    /// Allocates the given normal vector of an online CPU.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if the CPU is not in the matrix,
    /// [`MatrixError::Exhausted`] if the CPU is offline, or [`MatrixError::Taken`] if the vector is
    /// not free.
    pub fn take(&mut self, cpu_vector: CpuVector) -> Result<CpuVector, MatrixError> {
        self.check_online(cpu_vector.cpu)?;
        if !self.free_vectors(cpu_vector.cpu).any(|vector| vector == cpu_vector.vector) {
            return Err(MatrixError::Taken(cpu_vector));
        }
        self.insert_allocated(cpu_vector)
    }

    /// Frees a normal or managed vector. A managed vector stays reserved.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if the CPU is not in the matrix, or
    /// [`MatrixError::NotAllocated`] if the vector is not allocated.
    pub fn free(&mut self, cpu_vector: CpuVector) -> Result<(), MatrixError> {
        if self.map_mut(cpu_vector.cpu)?.allocated.remove(cpu_vector.vector) {
            Ok(())
        } else {
            Err(MatrixError::NotAllocated(cpu_vector))
        }
    }

    /// Reserves one managed vector on each CPU of the set, whether or not the CPU is online. If one
    /// reservation fails, none is made. The vectors may differ from CPU to CPU.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if a CPU is not in the matrix, or
    /// [`MatrixError::Exhausted`] if a CPU has no free vector left.
    pub fn reserve_managed(&mut self, on: &[Cpu]) -> Result<(), MatrixError> {
        for (done, cpu) in on.iter().enumerate() {
            // Note that a CPU may occur more than once.
            let before = on.iter().take(done).filter(|other| *other == cpu).count();
            self.map(*cpu)?;
            if self.free_vectors(*cpu).nth(before).is_none() {
                return Err(MatrixError::Exhausted(*cpu));
            }
        }
        for cpu in on {
            let vector = self.free_vectors(*cpu).next();
            if let Some((map, vector)) = self.cpus.get_mut(cpu.index()).zip(vector) {
                map.managed.insert(vector);
            }
        }
        Ok(())
    }

    /// Releases one unused managed vector on each CPU of the set.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if a CPU is not in the matrix, or
    /// [`MatrixError::NotManaged`] if a CPU has no unused managed vector. The vectors of the other
    /// CPUs are still released.
    pub fn release_managed(&mut self, on: &[Cpu]) -> Result<(), MatrixError> {
        let mut result = Ok(());
        for cpu in on {
            result = result.and(self.release_managed_on(*cpu));
        }
        result
    }

    /// Allocates the lowest unused managed vector on an online CPU.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if the CPU is not in the matrix, or
    /// [`MatrixError::Exhausted`] if the CPU is offline or has no unused managed vector.
    pub fn allocate_managed(&mut self, cpu: Cpu) -> Result<CpuVector, MatrixError> {
        let vector = self.unused_managed(cpu)?.filter(|_| self.is_online(cpu));
        let cpu_vector = CpuVector { cpu, vector: vector.ok_or(MatrixError::Exhausted(cpu))? };
        self.insert_allocated(cpu_vector)
    }

    /// Turns an allocated managed vector into a normal one. Once [freed](Self::free), the vector is
    /// available to all interrupts.
    ///
    /// # Errors
    /// Returns [`MatrixError::UnknownCpu`] if the CPU is not in the matrix, or
    /// [`MatrixError::NotManaged`] if the vector is not managed or not allocated.
    pub fn unmanage(&mut self, cpu_vector: CpuVector) -> Result<(), MatrixError> {
        let map = self.map_mut(cpu_vector.cpu)?;
        if !map.allocated.contains(cpu_vector.vector) || !map.managed.remove(cpu_vector.vector) {
            return Err(MatrixError::NotManaged(cpu_vector.cpu));
        }
        Ok(())
    }

    /// Returns the number of free normal vectors on the online CPUs.
    pub fn available(&self) -> u32 {
        let cpus = (0..u32::MAX).map(Cpu::new).take(self.cpus.len());
        cpus.filter(|cpu| self.is_online(*cpu)).map(|cpu| self.available_on(cpu)).sum()
    }

    /// Returns the number of free normal vectors on a CPU, whether or not the CPU is online, or 0
    /// for an unknown CPU.
    pub fn available_on(&self, cpu: Cpu) -> u32 {
        self.free_vectors(cpu).map(|_| 1).sum()
    }

    /// Returns `true` if this vector is allocated.
    pub fn is_allocated(&self, cpu_vector: CpuVector) -> bool {
        self.map(cpu_vector.cpu).is_ok_and(|map| map.allocated.contains(cpu_vector.vector))
    }

    /// Returns `true` if the CPU is online.
    pub fn is_online(&self, cpu: Cpu) -> bool {
        self.map(cpu).is_ok_and(|map| map.online)
    }

    fn insert_allocated(&mut self, cpu_vector: CpuVector) -> Result<CpuVector, MatrixError> {
        self.map_mut(cpu_vector.cpu)?.allocated.insert(cpu_vector.vector);
        Ok(cpu_vector)
    }

    fn release_managed_on(&mut self, cpu: Cpu) -> Result<(), MatrixError> {
        let vector = self.unused_managed(cpu)?.ok_or(MatrixError::NotManaged(cpu))?;
        self.map_mut(cpu)?.managed.remove(vector);
        Ok(())
    }

    fn map(&self, cpu: Cpu) -> Result<&CpuMap, MatrixError> {
        self.cpus.get(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))
    }

    fn map_mut(&mut self, cpu: Cpu) -> Result<&mut CpuMap, MatrixError> {
        self.cpus.get_mut(cpu.index()).ok_or(MatrixError::UnknownCpu(cpu))
    }

    fn check_online(&self, cpu: Cpu) -> Result<(), MatrixError> {
        if self.map(cpu)?.online { Ok(()) } else { Err(MatrixError::Exhausted(cpu)) }
    }

    /// Returns the CPU's lowest managed vector that is not allocated.
    fn unused_managed(&self, cpu: Cpu) -> Result<Option<ApicVector>, MatrixError> {
        let map = self.map(cpu)?;
        let unused =
            |vector: &ApicVector| map.managed.contains(*vector) && !map.allocated.contains(*vector);
        Ok(self.window.0.up_to(self.window.1).find(unused))
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

/// A set of vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bitmap([u64; 4]);

impl Bitmap {
    fn insert(&mut self, vector: ApicVector) {
        let (word, bit) = split(vector);
        self.0[word] |= bit;
    }

    /// Removes a vector. Returns `true` if the set contained the vector.
    fn remove(&mut self, vector: ApicVector) -> bool {
        let (word, bit) = split(vector);
        let was = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was
    }

    fn contains(&self, vector: ApicVector) -> bool {
        let (word, bit) = split(vector);
        self.0[word] & bit != 0
    }
}

impl FromIterator<ApicVector> for Bitmap {
    fn from_iter<I: IntoIterator<Item = ApicVector>>(vectors: I) -> Self {
        let mut map = Self::default();
        vectors.into_iter().for_each(|vector| map.insert(vector));
        map
    }
}

/// Returns the index of the word, which is below 4, and the bit in it.
fn split(vector: ApicVector) -> (usize, u64) {
    (vector.index() / 64, 1 << (vector.get() % 64))
}
