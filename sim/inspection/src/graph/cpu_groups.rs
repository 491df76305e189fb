//! Groups CPUs for the picture, to the extent that firmware states which CPUs belong together.

use crate::source::CpuClusters;
use crate::wording::counted;
use gic_firmware::{CpuNode, Description, NodeId};
use std::collections::HashMap;
use std::hash::Hash;

/// Maximum number of groups. If a level of the hierarchy has more, a higher level is drawn.
const MAX_GROUPS: usize = 16;

/// CPUs that are drawn as one box.
#[derive(Debug)]
pub(super) struct CpuGroup {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) cpus: Vec<NodeId>,
    pub(super) enabled: usize,
}

impl CpuGroup {
    /// Returns the lines of the group's box.
    pub(super) fn lines(&self) -> Vec<String> {
        let all = counted(self.cpus.len(), "CPU");
        let disabled = self.cpus.len() - self.enabled;
        let own = (self.title != all).then_some(all);
        own.into_iter().chain((disabled > 0).then(|| format!("{} enabled", self.enabled))).collect()
    }
}

/// Groups the CPUs by the lowest level of firmware's hierarchy that yields a few groups, in the
/// order of their first CPUs. Without a hierarchy, CPUs are grouped by Aff2 and Aff3 if Aff0 is 0
/// everywhere, because CPUs with a thread number in Aff0 have the core in Aff1. Otherwise, all CPUs
/// form one group.
pub(super) fn of(description: &Description, clusters: &CpuClusters) -> Vec<CpuGroup> {
    let cpus = &description.cpus;
    let depth = clusters.values().map(Vec::len).max().unwrap_or(0);
    let level = (1..=depth).rev().map(|depth| {
        grouped(cpus, |cpu| {
            let path = clusters.get(&cpu.id).map_or(&[][..], Vec::as_slice);
            path.iter().take(depth).map(String::as_str).collect::<Vec<_>>()
        })
    });
    let level = level.into_iter().find(|groups| is_apt(groups, cpus.len()));
    if let Some(level) = level {
        return level.into_iter().map(|(path, cpus)| group(name(&path), &cpus)).collect();
    }
    let is_threaded = cpus.iter().all(|cpu| cpu.affinity.mpidr().trailing_zeros() >= 8);
    let by_affinity = grouped(cpus, |cpu| cpu.affinity.mpidr() >> 16);
    if is_threaded && is_apt(&by_affinity, cpus.len()) {
        let name = |upper: u64| format!("affinity {}.{}", upper >> 16, upper & 0xff);
        return by_affinity.into_iter().map(|(upper, cpus)| group(name(upper), &cpus)).collect();
    }
    let all: Vec<_> = cpus.iter().collect();
    let title = counted(all.len(), "CPU");
    (!all.is_empty()).then(|| group(title, &all)).into_iter().collect()
}

fn name(path: &[&str]) -> String {
    if path.is_empty() { "other CPUs".to_owned() } else { path.join(", ") }
}

/// CPUs with the same key.
type Group<'c, K> = (K, Vec<&'c CpuNode>);

fn grouped<K: Clone + Eq + Hash>(
    cpus: &[CpuNode],
    key: impl Fn(&CpuNode) -> K,
) -> Vec<Group<'_, K>> {
    let (mut places, mut groups) = (HashMap::new(), Vec::<Group<'_, K>>::new());
    for cpu in cpus {
        let key = key(cpu);
        let place = *places.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, cpus)) => cpus.push(cpu),
            None => groups.push((key, vec![cpu])),
        }
    }
    groups
}

/// Returns `true` if there are a few groups, at least one of which has several CPUs.
fn is_apt<K>(groups: &[Group<'_, K>], cpus: usize) -> bool {
    (2..=MAX_GROUPS).contains(&groups.len()) && groups.len() < cpus
}

fn group(title: String, cpus: &[&CpuNode]) -> CpuGroup {
    CpuGroup {
        id: title.clone(),
        title,
        enabled: cpus.iter().filter(|cpu| cpu.status.is_enabled()).count(),
        cpus: cpus.iter().map(|cpu| cpu.id.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gic_firmware::Affinity;

    fn machine(affinities: &[[u8; 4]]) -> Description {
        let cpus = affinities.iter().enumerate().map(|(index, &[a3, a2, a1, a0])| {
            CpuNode::new(format!("/cpus/cpu@{index}"), Affinity::new(a3, a2, a1, a0))
        });
        Description { cpus: cpus.collect(), ..Description::default() }
    }

    fn titles(description: &Description, clusters: &CpuClusters) -> Vec<(String, Vec<String>)> {
        let groups = of(description, clusters).into_iter();
        groups.map(|group| (group.title.clone(), group.lines())).collect()
    }

    #[test]
    fn the_firmware_hierarchy_groups_cpus_into_clusters() {
        let machine = machine(&[[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0], [0, 0, 3, 0]]);
        let path = |cluster: &str| vec!["socket0".to_owned(), cluster.to_owned()];
        let of = ["cluster10", "cluster2", "cluster10", "cluster10"];
        let cpus = machine.cpus.iter().zip(of);
        let clusters = cpus.map(|(cpu, cluster)| (cpu.id.clone(), path(cluster))).collect();
        let [two, ten] = [("socket0, cluster2", "1 CPU"), ("socket0, cluster10", "3 CPUs")]
            .map(|(title, line)| (title.to_owned(), vec![line.to_owned()]));
        assert_eq!(titles(&machine, &clusters), [ten, two]);
    }

    #[test]
    fn single_threaded_cores_are_not_shown_as_clusters() {
        let machine = machine(&[[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0]]);
        assert_eq!(titles(&machine, &CpuClusters::new()), [("3 CPUs".to_owned(), vec![])]);
    }

    #[test]
    fn single_threaded_cores_are_grouped_by_the_upper_affinity_levels() {
        let machine = machine(&[[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]]);
        let expected = ["affinity 0.0", "affinity 0.1"];
        let titles = titles(&machine, &CpuClusters::new());
        assert_eq!(titles.iter().map(|(title, _)| title.as_str()).collect::<Vec<_>>(), expected);
        assert!(titles.iter().all(|(_, lines)| lines == &["2 CPUs"]));
    }

    #[test]
    fn clusters_of_one_cpu_share_one_box() {
        let machine = machine(&[[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 2, 0]]);
        let cpus = machine.cpus.iter().enumerate();
        let clusters = cpus.map(|(index, cpu)| (cpu.id.clone(), vec![format!("cluster{index}")]));
        assert_eq!(titles(&machine, &clusters.collect()), [("3 CPUs".to_owned(), vec![])]);
    }
}
