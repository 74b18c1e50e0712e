"""The layouts that people keep images in, one file each; `survey.survey` says which one a folder has, `cl.data.formats` reads it."""
