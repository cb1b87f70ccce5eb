//! The machine: how loaded it is now, and what class of machine it is.

use std::fs;

use forecastle_resources::Bytes;

/// How loaded the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LiveLoad {
    /// Runnable and waiting threads, averaged over a minute.
    pub average: f64,
    /// Memory that could be had without swapping.
    pub memory_available: Bytes,
}

impl LiveLoad {
    /// Reads `/proc`. Zeros for what cannot be read there: it informs people and decides nothing.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            average: load_average(&read("/proc/loadavg")).unwrap_or(0.0),
            memory_available: memory_available(&read("/proc/meminfo")).unwrap_or_default(),
        }
    }
}

fn load_average(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().next()?.parse().ok()
}

fn memory_available(meminfo: &str) -> Option<Bytes> {
    let kib: u64 =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok())?;
    Some(Bytes::kib(kib))
}

/// A name for machines that run at the same speed: the processor's model and the number of cores, such as
/// `intel-xeon-platinum-8375c-8`. Durations and CPU time are learnt by class.
pub fn node_class() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    class_of(&cpuinfo, cores)
}

fn class_of(cpuinfo: &str, cores: usize) -> String {
    let model = cpuinfo
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            matches!(name.trim(), "model name" | "Model" | "Hardware").then(|| value.trim())
        })
        .unwrap_or(std::env::consts::ARCH);
    // What is not in the name of every such machine: the clock, and words that say nothing.
    let model = model.split('@').next().unwrap_or(model).replace("(R)", " ").replace("(TM)", " ");
    let words = model.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| {
        !word.is_empty() && !word.eq_ignore_ascii_case("cpu") && !word.eq_ignore_ascii_case("processor")
    });
    let mut name = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
    name.truncate(48);
    format!("{name}-{cores}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(load_average("0.52 0.40 0.30 1/234 5678\n"), Some(0.52));
        assert_eq!(load_average(""), None);
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(Bytes::mib(2)));
        assert_eq!(memory_available("MemTotal: 9 kB\n"), None);
        assert!(LiveLoad::now().memory_available > Bytes::mib(1));
    }

    #[test]
    fn the_class_names_the_processor_without_its_clock() {
        let cpuinfo = "processor : 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz\n";
        assert_eq!(class_of(cpuinfo, 8), "intel-xeon-platinum-8375c-8");
        assert_eq!(class_of("", 2), format!("{}-2", std::env::consts::ARCH.replace('_', "-")));
        assert!(!node_class().is_empty());
    }
}
