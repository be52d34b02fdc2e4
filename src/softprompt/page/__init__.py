"""Pages of reports: sections of words, tables and figures become one offline HTML page, or Markdown.

The page and the Markdown file are two renderings of the same sections, so their numbers are the same. Nothing
here knows what a report is about.
"""
