-- How many payments banks dispute just now.
SELECT count(*) FROM ledgers WHERE is_unsettled AND dispute = 'open'
