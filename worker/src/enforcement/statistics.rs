//! What the kernel's statistics say. Sources: the kernel's `Documentation/admin-guide/cgroup-v1/memory.rst`,
//! `cgroup-v1/blkio-controller.rst` and `cgroup-v2.rst`.

use forecastle_resources::Bytes;

/// The value of a key in lines of `key value`.
pub fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Actual memory by version 1's `memory.stat` and `memory.kmem.usage_in_bytes`.
///
/// `rss` is anonymous memory only (whatever its name), transparent huge pages included; `shmem` counts as cache there
/// and is none, since nothing can take it back. The `total_` values include cgroups that the run made itself.
pub fn actual_memory_v1(memory_stat: &str, kernel_memory: Option<u64>) -> Bytes {
    let either = |total: &str, own: &str| value(memory_stat, total).or_else(|| value(memory_stat, own)).unwrap_or(0);
    let anonymous = either("total_rss", "rss");
    let shared = either("total_shmem", "shmem");
    Bytes(anonymous.saturating_add(shared).saturating_add(kernel_memory.unwrap_or(0)))
}

/// Actual memory by version 2's `memory.stat`.
///
/// `shmem` is part of `file` there, so it is added to `anon`. `kernel` is there from Linux 5.18; before, it is the sum
/// of its parts.
pub fn actual_memory_v2(memory_stat: &str) -> Bytes {
    let of = |key| value(memory_stat, key).unwrap_or(0);
    let kernel = value(memory_stat, "kernel").unwrap_or_else(|| {
        ["kernel_stack", "pagetables", "percpu", "sock", "slab"]
            .iter()
            .fold(0, |sum: u64, key| sum.saturating_add(of(key)))
    });
    Bytes(of("anon").saturating_add(of("shmem")).saturating_add(kernel))
}

/// Bytes read and written by version 1's `blkio.throttle.io_service_bytes_recursive`: lines of `8:0 Read 4096`, one for
/// each device and kind, and totals, which are left out.
pub fn io_v1(service_bytes: &str) -> (Bytes, Bytes) {
    let sum = |kind: &str| {
        service_bytes.lines().fold(0u64, |sum, line| {
            let mut words = line.split_whitespace();
            let device = words.next().is_some_and(|word| word.contains(':'));
            match (device, words.next(), words.next()) {
                (true, Some(found), Some(bytes)) if found == kind => sum.saturating_add(bytes.parse().unwrap_or(0)),
                _ => sum,
            }
        })
    };
    (Bytes(sum("Read")), Bytes(sum("Write")))
}

/// Bytes read and written by version 2's `io.stat`: lines of `8:0 rbytes=4096 wbytes=0 rios=1 …`.
pub fn io_v2(io_stat: &str) -> (Bytes, Bytes) {
    let sum = |key: &str| {
        io_stat.split_whitespace().fold(0u64, |sum, word| {
            let bytes = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')?.parse().ok());
            sum.saturating_add(bytes.unwrap_or(0))
        })
    };
    (Bytes(sum("rbytes")), Bytes(sum("wbytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: &str = "cache 10616832\nrss 9371648\nrss_huge 0\nshmem 9166848\nmapped_file 7061504\nswap 0\n\
        hierarchical_memory_limit 9223372036854771712\ntotal_cache 2640748544\ntotal_rss 566333440\n\
        total_rss_huge 4194304\ntotal_shmem 69214208\ntotal_mapped_file 363073536\n";

    const V2: &str = "anon 1048576\nfile 629145600\nkernel 2097152\nkernel_stack 16384\npagetables 65536\n\
        sec_pagetables 0\npercpu 1024\nsock 0\nvmalloc 0\nshmem 4194304\nfile_mapped 0\nslab_reclaimable 8192\n\
        slab_unreclaimable 4096\nslab 12288\n";

    #[test]
    fn version_1_counts_anonymous_shared_and_kernel_memory_and_no_cache() {
        assert_eq!(actual_memory_v1(V1, Some(1000)), Bytes(566_333_440 + 69_214_208 + 1000));
        assert_eq!(actual_memory_v1("rss 5\nshmem 7\ncache 100\n", None), Bytes(12), "without hierarchies");
        assert_eq!(actual_memory_v1("", None), Bytes::ZERO);
    }

    #[test]
    fn version_2_counts_anonymous_shared_and_kernel_memory_and_no_cache() {
        assert_eq!(actual_memory_v2(V2), Bytes(1_048_576 + 4_194_304 + 2_097_152));
        let old = V2.replace("kernel 2097152\n", "");
        assert_eq!(actual_memory_v2(&old), Bytes(1_048_576 + 4_194_304 + 16384 + 65536 + 1024 + 12288));
    }

    #[test]
    fn a_key_is_a_whole_word() {
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(value("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 1\n", "oom_kill"), Some(2));
        assert_eq!(value("usage_usec 1500\n", "usage"), None);
        assert_eq!(value("usage_usec x\n", "usage_usec"), None);
    }

    #[test]
    fn block_io_is_summed_over_devices_without_the_totals() {
        let v1 = "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\n8:0 Total 4608\n254:16 Read 1\nTotal 4609\n";
        assert_eq!(io_v1(v1), (Bytes(4097), Bytes(512)));
        assert_eq!(io_v1("Total 0\n"), (Bytes::ZERO, Bytes::ZERO));
        let v2 =
            "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=90430464\n253:0 \n";
        assert_eq!(io_v2(v2), (Bytes(1_459_200 + 90_430_464), Bytes(314_773_504)));
        assert_eq!(io_v2(""), (Bytes::ZERO, Bytes::ZERO));
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_writes_nothing_panics(text in "([a-z_]{1,9}[ =:]?[0-9]{0,24}[ \n])*|.*") {
            let _ = (actual_memory_v1(&text, Some(u64::MAX)), actual_memory_v2(&text), io_v1(&text), io_v2(&text));
            let _ = value(&text, "oom_kill");
        }
    }
}
