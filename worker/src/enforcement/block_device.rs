//! The disk that holds a path, as the kernel's limits name it.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::enforcement::error::EnforcementError;

/// A whole disk, printed as `8:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    major: u32,
    minor: u32,
}

impl BlockDevice {
    /// The disk that holds `path`, or that will when it is made: that of the nearest folder that is there. `None` if no
    /// block device does (a file system in memory or on the network).
    pub fn of(path: &Path) -> Result<Option<Self>, EnforcementError> {
        let absolute =
            std::path::absolute(path).map_err(|source| EnforcementError::control("look at", path, source))?;
        let metadata = absolute
            .ancestors()
            .map(fs::metadata)
            .find(|found| !found.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound))
            .unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()))
            .map_err(|source| EnforcementError::control("look at", path, source))?;
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let system = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
        if major == 0 || !system.exists() {
            return Ok(None);
        }
        // Limits are set on whole disks; a partition's folder stands inside its disk's.
        let dev = if system.join("partition").exists() { system.join("../dev") } else { system.join("dev") };
        let text = super::control_file::read(&dev)?;
        Self::parse(&text)
            .map(Some)
            .ok_or_else(|| EnforcementError::Unexpected { path: dev, reason: "it is not of the form 8:0".to_owned() })
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_printed_as_the_kernel_does() {
        assert_eq!(BlockDevice::parse("254:16\n").map(|device| device.to_string()), Some("254:16".to_owned()));
        assert_eq!(BlockDevice::parse("254"), None);
        assert_eq!(BlockDevice::parse(""), None);
    }

    #[test]
    fn file_systems_without_a_disk_have_none() {
        assert_eq!(BlockDevice::of(Path::new("/proc")).unwrap(), None);
        assert!(BlockDevice::of(Path::new("/proc/version/x")).unwrap_err().to_string().contains("/proc/version/x"));
    }

    #[test]
    fn what_is_not_there_yet_will_be_where_its_folder_is() {
        let there = BlockDevice::of(Path::new("/")).unwrap();
        assert_eq!(BlockDevice::of(Path::new("/no/such/path")).unwrap(), there);
    }
}
