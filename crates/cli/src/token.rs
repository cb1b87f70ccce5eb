//! Where the API token comes from.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::failure::Failure;

/// Files that a frontend on this machine keeps its own token in, in the directory it was started from.
const LOCAL: [&str; 2] = [".forecastle/frontend/token", ".stack/frontend/token"];

/// A token and where it was found.
#[derive(Clone)]
pub(crate) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(crate) header: HeaderValue,
    pub(crate) from: String,
    /// The file it was in.
    pub(crate) file: Option<PathBuf>,
}

/// What the search found.
#[derive(Clone)]
pub(crate) struct Search {
    pub(crate) token: Option<Token>,
    /// Where it was not.
    searched: Vec<String>,
}

/// What of the process's surroundings decides.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    token: Option<String>,
    token_file: Option<PathBuf>,
    config_home: Option<PathBuf>,
    home: Option<PathBuf>,
    working: PathBuf,
}

impl Surroundings {
    pub(crate) fn of_this_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            token: std::env::var("FORECASTLE_TOKEN").ok().filter(|token| !token.trim().is_empty()),
            token_file: path("FORECASTLE_TOKEN_FILE"),
            // The specification has relative paths ignored.
            config_home: path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()),
            home: path("HOME"),
            working: PathBuf::new(),
        }
    }
}

impl Search {
    /// The first there is of: `given` (`--token-file`), the environment, for a frontend on this machine the files of
    /// its own, the user's configuration. A file that was named must be there; the others need not.
    pub(crate) fn new(around: &Surroundings, given: Option<&Path>, url: &Url) -> Result<Self, Failure> {
        let mut searched = Vec::new();
        if given.is_none()
            && let Some(token) = &around.token
        {
            let token = Token::new(token, "FORECASTLE_TOKEN".to_owned(), None)?;
            return Ok(Self { token: Some(token), searched });
        }
        if let Some(file) = given.or(around.token_file.as_deref()) {
            let token =
                read(file).map_err(|error| Failure::Usage(format!("token file {}: {error}", file.display())))?;
            let token = Token::new(&token, file.display().to_string(), Some(file.to_owned()))?;
            return Ok(Self { token: Some(token), searched });
        }
        searched.extend(["FORECASTLE_TOKEN".to_owned(), "FORECASTLE_TOKEN_FILE".to_owned()]);
        // Not for other machines: the current directory may be anybody's, and so may the URL.
        let local = LOCAL.iter().filter(|_| is_local(url)).map(|file| around.working.join(file));
        let configured = around.config_home.clone().or_else(|| around.home.as_ref().map(|home| home.join(".config")));
        for file in local.chain(configured.map(|folder| folder.join("forecastle/token"))) {
            match read(&file) {
                Ok(token) => {
                    let token = Token::new(&token, file.display().to_string(), Some(file))?;
                    return Ok(Self { token: Some(token), searched });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => searched.push(file.display().to_string()),
                Err(error) => searched.push(format!("{} ({error})", file.display())),
            }
        }
        Ok(Self { token: None, searched })
    }

    /// What was found and where, for a person whose token was refused.
    pub(crate) fn explained(&self) -> String {
        match &self.token {
            Some(token) => format!("the token came from {}; --token-file names another", token.from),
            None => format!("no token was found in {}; --token-file names one", self.searched.join(", ")),
        }
    }
}

impl Token {
    fn new(text: &str, from: String, file: Option<PathBuf>) -> Result<Self, Failure> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Failure::Usage(format!("the token in {from} is empty")));
        }
        // Its own error could repeat the token.
        let Ok(mut header) = HeaderValue::from_str(&format!("Bearer {text}")) else {
            return Err(Failure::Usage(format!("the token in {from} has characters that no token has")));
        };
        header.set_sensitive(true);
        Ok(Self { header, from, file })
    }
}

/// A file of at most 64 KiB: no token is longer, and no mistake (a device, a dump) is read whole.
fn read(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(64 << 10).read_to_string(&mut text)?;
    Ok(text)
}

/// True if the URL is of this machine.
pub(crate) fn is_local(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn put(folder: &Path, file: &str, text: &str) -> PathBuf {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn found(around: &Surroundings, given: Option<&Path>, at: &str) -> Option<String> {
        let search = Search::new(around, given, &url(at)).unwrap();
        search.token.map(|token| token.header.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_nearer_place_wins_and_a_remote_frontend_gets_no_local_token() {
        let folder = tempfile::tempdir().unwrap();
        let (here, home) = (folder.path().join("here"), folder.path().join("home"));
        let (local, remote) = ("http://127.0.0.1:7070", "http://forecastle.test");
        let mut around = Surroundings { working: here.clone(), home: Some(home.clone()), ..Default::default() };
        assert_eq!(found(&around, None, local), None);
        put(&home, ".config/forecastle/token", "of-home");
        assert_eq!(found(&around, None, local).unwrap(), "Bearer of-home");
        put(&here, ".stack/frontend/token", "of-stack\n");
        assert_eq!(found(&around, None, local).unwrap(), "Bearer of-stack");
        put(&here, ".forecastle/frontend/token", "of-frontend");
        assert_eq!(found(&around, None, local).unwrap(), "Bearer of-frontend");
        assert_eq!(found(&around, None, remote).unwrap(), "Bearer of-home");
        around.token_file = Some(put(folder.path(), "a", "of-variable"));
        assert_eq!(found(&around, None, local).unwrap(), "Bearer of-variable");
        around.token = Some("of-environment".to_owned());
        assert_eq!(found(&around, None, local).unwrap(), "Bearer of-environment");
        let given = put(folder.path(), "b", "given");
        assert_eq!(found(&around, Some(&given), local).unwrap(), "Bearer given");
    }

    #[test]
    fn a_named_file_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings::default();
        for (file, wanted) in [
            (folder.path().join("missing"), "missing"),
            (put(folder.path(), "empty", " \n"), "is empty"),
            (put(folder.path(), "odd", "to\nken"), "characters"),
        ] {
            let error = Search::new(&around, Some(&file), &url("http://127.0.0.1")).err().unwrap();
            assert!(matches!(&error, Failure::Usage(text) if text.contains(wanted)), "{error}");
        }
    }

    #[test]
    fn a_missing_token_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings { working: folder.path().to_owned(), ..Default::default() };
        let text = Search::new(&around, None, &url("http://[::1]:7070")).unwrap().explained();
        assert!(text.contains("FORECASTLE_TOKEN") && text.contains(".forecastle/frontend/token"), "{text}");
    }
}
