//! Dead letters for clients: the list, and one with its original bytes.

use api::event::Source;
use api::letter::{DeadLetter, Encoding, Letters, Marked, Purged, WholeLetter};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use query::params::letters::{Chosen, LetterPage};
use runtime::logging::chain;
use uuid::Uuid;

use super::Error;
use super::reader::Reader;
use super::show::cut;
use crate::stores::raw;
use crate::stores::read::Letter;
use crate::tenancy::Tenant;

/// Most original bytes that one answer holds: a whole event of the largest size. Only lines that
/// were refused for their length are longer.
const SHOWN_BYTES: i64 = 1024 * 1024;

/// Said of bytes that are no longer there, or can't be read now.
const RAW_AWAY: &str = "the original bytes can't be read right now, or are kept no longer";
/// Said of bytes that are too many.
const RAW_CUT: &str = "only the first 1 MiB of the original bytes is shown";

impl Reader {
    /// A page of dead letters.
    pub async fn letters(&self, tenant: &Tenant, page: &LetterPage) -> Result<Letters, Error> {
        let (letters, next) = cut(self.catalog.letters(tenant, page).await?, page.limit, |letter| letter.place);
        Ok(Letters {
            items: letters.into_iter().map(|letter| letter.shown).collect(),
            next_cursor: next.map(|cursor| cursor.encode(page.asked)),
            source: Source::Catalog,
            complete: true,
        })
    }

    /// One dead letter; `None` if the tenant has no such one.
    pub async fn letter(&self, tenant: &Tenant, id: Uuid) -> Result<Option<WholeLetter>, Error> {
        let Some(letter) = self.catalog.letter(tenant, id).await? else { return Ok(None) };
        let read = match self.raw_of(tenant, &letter).await {
            // Archived between our reading its row and its frame: its row says now where it went.
            Ok(None) => match self.catalog.letter(tenant, id).await? {
                Some(letter) => self.raw_of(tenant, &letter).await,
                None => return Ok(None),
            },
            read => read,
        };
        let read = read.unwrap_or_else(|error| {
            tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "show a dead letter without its bytes");
            None
        });
        Ok(Some(whole(letter.shown, read)))
    }

    async fn raw_of(&self, tenant: &Tenant, letter: &Letter) -> Result<Option<(Vec<u8>, Source)>, raw::RawError> {
        if let Some(raw) = &letter.inline {
            let shown = usize::try_from(SHOWN_BYTES).unwrap_or(usize::MAX).min(raw.len());
            return Ok(Some((raw[..shown].to_vec(), Source::Catalog)));
        }
        let at = raw::RawAt { length: letter.raw.length.min(SHOWN_BYTES), ..letter.raw };
        raw::read(&self.catalog, &self.archive, tenant, at).await
    }

    /// Marks one letter to be tried again; an error if it can't be.
    pub async fn redrive_one(&self, tenant: &Tenant, id: Uuid) -> Result<Marked, Error> {
        let letter = self.catalog.letter(tenant, id).await?.ok_or(Error::NotFound)?;
        if !letter.shown.redrivable {
            return Err(Error::NotRedrivable);
        }
        self.redrive(tenant, &Chosen::Ids(vec![id])).await
    }

    /// Marks letters to be tried again, as many as one request may.
    pub async fn redrive(&self, tenant: &Tenant, chosen: &Chosen) -> Result<Marked, Error> {
        let (marked, more) = self.catalog.mark_letters(tenant, chosen).await?;
        Ok(Marked { marked, more })
    }

    /// Purges letters, as many as one request may.
    pub async fn purge(&self, tenant: &Tenant, chosen: &Chosen) -> Result<Purged, Error> {
        let (purged, more) = self.catalog.purge_letters(tenant, chosen).await?;
        Ok(Purged { purged, more })
    }
}

fn whole(letter: DeadLetter, read: Option<(Vec<u8>, Source)>) -> WholeLetter {
    let Some((bytes, source)) = read else {
        let (source, notice) = (Source::Catalog, Some(RAW_AWAY.into()));
        return WholeLetter { letter, raw: None, encoding: None, source, complete: false, notice };
    };
    let complete = i64::try_from(bytes.len()) == Ok(letter.raw_bytes);
    let (raw, encoding) = match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    };
    let notice = (!complete).then_some(RAW_CUT.into());
    WholeLetter { letter, raw: Some(raw), encoding: Some(encoding), source, complete, notice }
}
