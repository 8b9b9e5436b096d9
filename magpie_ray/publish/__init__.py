"""What is made from a build for others: dataset card, report, exported rows, a copy on the Hugging Face hub.

Read card and curated_card, then export with export_file and preference (pairs of answers), then push with hub
and hub_paths (the repository), then first_words, histogram, instruction_sample, survey and survey_reader
(counts over rows), then report/ (the page that shows them).

Invariants: everything here is made from storage alone, so it can be made again at any time; the data of a
build is never changed. Importing this package imports nothing else.
"""
