//! The catalogue that is in force. A file with errors changes nothing: the old one stays.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use forecastle_catalogue::{Catalogue, CatalogueErrors};
use tokio_util::sync::CancellationToken;

/// The catalogue and the file it came from.
#[derive(Debug)]
pub struct CatalogueStore {
    path: PathBuf,
    current: RwLock<Arc<Catalogue>>,
    /// When the file had last changed before it was read at start: a later change is never missed.
    loaded: Option<SystemTime>,
}

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl CatalogueStore {
    /// Reads the file; all that is wrong with it is named at once.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, CatalogueErrors> {
        let path = path.into();
        let loaded = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let catalogue = Catalogue::load(&path)?;
        Ok(Self { path, current: RwLock::new(Arc::new(catalogue)), loaded })
    }

    /// The catalogue that is in force.
    pub fn current(&self) -> Arc<Catalogue> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again. On errors the old catalogue stays in force.
    pub fn reload(&self) -> Result<(), CatalogueErrors> {
        let catalogue = Catalogue::load(&self.path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
        Ok(())
    }

    /// Reloads whenever the file has changed, until told to stop.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.loaded;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let modified = self.modified().await;
            if modified == seen {
                continue;
            }
            seen = modified;
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(())) => tracing::info!(path = %self.path.display(), "the catalogue was reloaded"),
                Ok(Err(errors)) => {
                    tracing::error!(path = %self.path.display(), %errors, "the changed catalogue has errors; the old one stays in force");
                }
                Err(error) => tracing::error!(%error, "reading the catalogue failed"),
            }
        }
    }

    async fn modified(&self) -> Option<SystemTime> {
        tokio::fs::metadata(&self.path).await.and_then(|m| m.modified()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_type(name: &str) -> String {
        format!(
            "version = 1\n[types.{name}]\ninput = \"none\"\n\
             stages = [{{ name = \"s\", units = [\"u\"], over = \"once\" }}]\n[units.u]\ntask = \"t\"\n"
        )
    }

    fn types(store: &CatalogueStore) -> Vec<String> {
        store.current().types().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_catalogue_with_errors_leaves_the_old_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.toml");
        std::fs::write(&path, with_type("old")).unwrap();
        let store = CatalogueStore::load(&path).unwrap();
        for broken in
            ["", "version = 1\n[types.new]\n", "version = 1\n[types", &with_type("new").replace("\"u\"", "\"v\"")]
        {
            std::fs::write(&path, broken).unwrap();
            assert!(store.reload().is_err(), "{broken}");
            assert_eq!(types(&store), ["old"], "{broken}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(store.reload().is_err());
        assert_eq!(types(&store), ["old"]);
        std::fs::write(&path, with_type("new")).unwrap();
        store.reload().unwrap();
        assert_eq!(types(&store), ["new"]);
    }
}
