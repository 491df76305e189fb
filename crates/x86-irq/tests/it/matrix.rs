//! Compares the matrix with a naive one that recounts everything on each call.

use core::num::NonZeroU16;
use msi_types::Cpu;
use proptest::prelude::*;
use std::collections::BTreeSet;
use x86_irq::{ApicVector, CpuVector, MatrixError, VectorMatrix};

const CPUS: u32 = 3;
const FIRST: u8 = 0x20;
const LAST: u8 = 0x2a;
const SYSTEM: u8 = 0x24;

fn vector(number: u8) -> ApicVector {
    ApicVector::new(number).unwrap()
}

fn matrix() -> VectorMatrix {
    VectorMatrix::new(
        NonZeroU16::new(3).unwrap(),
        vector(FIRST)..=vector(LAST),
        &[vector(SYSTEM), vector(0x10)],
    )
    .unwrap()
}

/// A model of plain sets, without counters that could become inconsistent.
#[derive(Default)]
struct Model {
    online: BTreeSet<u32>,
    normal: BTreeSet<(u32, u8)>,
    managed: BTreeSet<(u32, u8)>,
    managed_used: BTreeSet<(u32, u8)>,
}

impl Model {
    fn free(&self, cpu: u32) -> Vec<u8> {
        let taken = |v: &u8| self.normal.contains(&(cpu, *v)) || self.managed.contains(&(cpu, *v));
        (FIRST..=LAST).filter(|v| *v != SYSTEM && !taken(v)).collect()
    }

    fn available(&self) -> usize {
        self.online.iter().map(|cpu| self.free(*cpu).len()).sum()
    }

    fn allocate(&mut self, cpu: u32) -> Option<(u32, u8)> {
        let place = (cpu, *self.free(cpu).first().filter(|_| self.online.contains(&cpu))?);
        self.normal.insert(place);
        Some(place)
    }

    fn allocate_common(&mut self, cpu: u32) -> Option<(u32, u8)> {
        if !self.online.contains(&cpu) {
            return None;
        }
        let mut best: Option<(usize, u8)> = None;
        for v in self.free(cpu) {
            let on = self.online.iter().filter(|other| self.free(**other).contains(&v)).count();
            if on >= best.map_or(0, |(most, _)| most) {
                best = Some((on, v));
            }
        }
        let place = (cpu, best?.1);
        self.normal.insert(place);
        Some(place)
    }

    fn reserve_managed(&mut self, on: &[u32]) -> bool {
        let before = self.managed.clone();
        for cpu in on {
            let Some(v) = self.free(*cpu).first().copied() else {
                self.managed = before;
                return false;
            };
            self.managed.insert((*cpu, v));
        }
        true
    }

    fn unused(&self, cpu: u32) -> Option<(u32, u8)> {
        self.managed
            .iter()
            .find(|place| place.0 == cpu && !self.managed_used.contains(place))
            .copied()
    }

    fn allocate_managed(&mut self, cpu: u32) -> Option<(u32, u8)> {
        let place = self.unused(cpu).filter(|_| self.online.contains(&cpu))?;
        self.managed_used.insert(place);
        Some(place)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Online(u32),
    Offline(u32),
    Allocate(u32),
    AllocateCommon(u32),
    Take(u32, u8),
    Free(u32, u8),
    ReserveManaged(Vec<u32>),
    ReleaseManaged(u32),
    AllocateManaged(u32),
}

fn ops() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    let cpus = || proptest::sample::subsequence(vec![0, 1, 2], 1..=3);
    let number = FIRST - 1..=LAST + 1;
    prop_oneof![
        2 => cpu.clone().prop_map(Op::Online),
        1 => cpu.clone().prop_map(Op::Offline),
        6 => cpu.clone().prop_map(Op::Allocate),
        2 => cpu.clone().prop_map(Op::AllocateCommon),
        2 => (cpu.clone(), number.clone()).prop_map(|(c, v)| Op::Take(c, v)),
        6 => (cpu.clone(), number).prop_map(|(c, v)| Op::Free(c, v)),
        2 => cpus().prop_map(Op::ReserveManaged),
        1 => cpu.clone().prop_map(Op::ReleaseManaged),
        3 => cpu.prop_map(Op::AllocateManaged),
    ]
}

fn cpus(numbers: &[u32]) -> Vec<Cpu> {
    numbers.iter().copied().map(Cpu::new).collect()
}

fn place(raw: (u32, u8)) -> CpuVector {
    CpuVector { cpu: Cpu::new(raw.0), vector: vector(raw.1) }
}

fn apply(op: Op, matrix: &mut VectorMatrix, model: &mut Model) {
    match op {
        Op::Online(cpu) => {
            matrix.online(Cpu::new(cpu)).unwrap();
            model.online.insert(cpu);
        }
        Op::Offline(cpu) => {
            matrix.offline(Cpu::new(cpu)).unwrap();
            model.online.remove(&cpu);
        }
        Op::Allocate(cpu) => {
            assert_eq!(matrix.allocate(Cpu::new(cpu)).ok(), model.allocate(cpu).map(place));
        }
        Op::AllocateCommon(cpu) => {
            let expected = model.allocate_common(cpu).map(place);
            assert_eq!(matrix.allocate_common(Cpu::new(cpu)).ok(), expected);
        }
        Op::Take(cpu, v) => {
            let possible = model.online.contains(&cpu) && model.free(cpu).contains(&v);
            assert_eq!(matrix.take(place((cpu, v))).is_ok(), possible);
            if possible {
                model.normal.insert((cpu, v));
            }
        }
        Op::Free(cpu, v) => {
            let was = model.normal.remove(&(cpu, v)) || model.managed_used.remove(&(cpu, v));
            let expected =
                if was { Ok(()) } else { Err(MatrixError::NotAllocated(place((cpu, v)))) };
            assert_eq!(matrix.free(place((cpu, v))), expected);
        }
        Op::ReserveManaged(on) => {
            assert_eq!(matrix.reserve_managed(&cpus(&on)).is_ok(), model.reserve_managed(&on));
        }
        Op::ReleaseManaged(cpu) => {
            let unused = model.unused(cpu);
            assert_eq!(matrix.release_managed(&[Cpu::new(cpu)]).is_ok(), unused.is_some());
            unused.map(|place| model.managed.remove(&place));
        }
        Op::AllocateManaged(cpu) => {
            let expected = model.allocate_managed(cpu).map(place);
            assert_eq!(matrix.allocate_managed(Cpu::new(cpu)).ok(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_vector_matrix_agrees_with_a_naive_model(
        ops in proptest::collection::vec(ops(), 0..120),
    ) {
        let (mut matrix, mut model) = (matrix(), Model::default());
        for op in ops {
            apply(op, &mut matrix, &mut model);
            prop_assert_eq!(matrix.available() as usize, model.available());
            for cpu in 0..CPUS {
                prop_assert_eq!(matrix.available_on(Cpu::new(cpu)) as usize, model.free(cpu).len());
                for v in FIRST..=LAST {
                    let used = [&model.normal, &model.managed_used]
                        .into_iter()
                        .any(|vectors| vectors.contains(&(cpu, v)));
                    prop_assert_eq!(matrix.is_allocated(place((cpu, v))), used);
                }
            }
        }
    }
}

#[test]
fn the_vector_matrix_refuses_an_unknown_cpu() {
    let stranger = Cpu::new(3);
    let mut matrix = matrix();
    assert_eq!(matrix.online(stranger), Err(MatrixError::UnknownCpu(stranger)));
    assert_eq!(matrix.allocate(stranger), Err(MatrixError::UnknownCpu(stranger)));
    assert_eq!(matrix.available_on(stranger), 0);
}
