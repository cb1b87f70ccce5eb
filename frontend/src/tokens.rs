//! API tokens: each belongs to a tenant.
//!
//! Without configured tokens the frontend makes one for the tenant `default` and keeps it in its data folder, readable
//! by its owner alone: there is no open door by default.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use forecastle_service::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A token and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenOptions {
    /// The tenant.
    pub tenant: String,
    /// The token, of at least 16 bytes.
    pub token: Secret,
    /// True for whoever operates the fleet: `GET /v1/fleet`, and with it `forecastle top`, tells whose every lease is.
    /// Requests stay the tenant's own all the same.
    pub operator: bool,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant.
    pub tenant: String,
    /// May see whose the leases of the fleet are.
    pub operator: bool,
}

/// The shortest token, in bytes.
pub const SHORTEST: usize = 16;

/// The tenant of the generated token.
pub const DEFAULT_TENANT: &str = "default";

/// The tokens that open the API. Only their digests are kept.
#[derive(Clone)]
pub struct Tokens(Vec<([u8; 32], Identity)>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, identity)| identity)).finish()
    }
}

impl Tokens {
    /// From the configuration.
    pub fn new(options: &[TokenOptions]) -> Self {
        let identity = |o: &TokenOptions| Identity { tenant: o.tenant.clone(), operator: o.operator };
        Self(options.iter().map(|o| (digest(o.token.expose()), identity(o))).collect())
    }

    /// The generated token of `directory`, made if it is not there, and the file it is in. It is an operator's: nobody
    /// else can read that folder.
    pub fn generated(directory: &Path) -> io::Result<(Self, PathBuf)> {
        let path = directory.join("token");
        let token = match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= SHORTEST => text.trim().to_owned(),
            Ok(_) => make(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(error),
        };
        let identity = Identity { tenant: DEFAULT_TENANT.to_owned(), operator: true };
        Ok((Self(vec![(digest(&token), identity)]), path))
    }

    /// Whose a token is. Every known token is compared, in constant time, whichever matches.
    pub fn identify(&self, token: &str) -> Option<&Identity> {
        let given = digest(token);
        self.0.iter().fold(None, |found, (known, identity)| {
            let difference = known.iter().zip(&given).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if difference == 0 { Some(identity) } else { found }
        })
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Writes a new token beside its place and moves it there, so that nobody reads half of it.
fn make(path: &Path) -> io::Result<String> {
    // 244 random bits of the operating system.
    let token = format!("fc-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let beside = path.with_extension("new");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_opens_its_own_tenant_and_nothing_else() {
        let option =
            |tenant: &str, token: &str, operator| TokenOptions { tenant: tenant.into(), token: token.into(), operator };
        let tokens = Tokens::new(&[option("a", "aaaaaaaaaaaaaaaa", false), option("b", "bbbbbbbbbbbbbbbb", true)]);
        let identity = |tenant: &str, operator| Some(Identity { tenant: tenant.to_owned(), operator });
        assert_eq!(tokens.identify("aaaaaaaaaaaaaaaa").cloned(), identity("a", false));
        assert_eq!(tokens.identify("bbbbbbbbbbbbbbbb").cloned(), identity("b", true));
        assert_eq!(tokens.identify("aaaaaaaaaaaaaaab"), None);
        assert_eq!(tokens.identify(""), None);
        assert!(!format!("{tokens:?}").contains("aaaa"));
    }

    #[test]
    fn a_generated_token_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let (_, path) = Tokens::generated(folder.path()).unwrap();
        let token = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (again, _) = Tokens::generated(folder.path()).unwrap();
        assert_eq!(again.identify(token.trim()).map(|i| (&*i.tenant, i.operator)), Some((DEFAULT_TENANT, true)));
    }
}
